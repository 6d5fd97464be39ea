"""Lookups: which requests they cost, and what they find."""

import pytest

from ossfs_py.errors import NoSuchEntryError
from ossfs_py.namespace.namespace import Kind
from tests.support.fake_store import FakeStore
from tests.unit.namespace.mounted import Mounted, mounted


def test_lookup_of_a_file_asks_head_and_list_once_and_then_nothing() -> None:
    store = FakeStore()
    store.seed("a/b/c", b"12345")

    async def run(m: Mounted) -> None:
        c = await m.at("a/b/c")
        assert c.kind is Kind.FILE
        assert (await m.namespace.attributes(c)).size == 5
        assert m.store.take_requests() == {"head": 3, "list_page": 3}
        assert await m.at("a/b/c") is c
        assert (await m.namespace.refresh_version(c)).size == 5
        assert m.store.take_requests() == {}

    mounted(run, store)


def test_absent_name_is_asked_every_time_by_default() -> None:
    async def run(m: Mounted) -> None:
        for _ in range(2):
            with pytest.raises(NoSuchEntryError):
                await m.at("nothing")
        assert m.store.take_requests() == {"head": 2, "list_page": 2}

    mounted(run)
