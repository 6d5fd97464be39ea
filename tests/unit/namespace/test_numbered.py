"""Pages of numbered files that are asked for before the page before has come."""

from dataclasses import replace

from ossfs_py.model import ListPage, ListQuery
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

FILES = 20_000


def store_of(*keys: str) -> FakeStore:
    store = FakeStore()
    for key in keys:
        store.seed(key, b"x")
    return store


def test_a_numbered_directory_is_listed_whole_and_with_few_wasted_requests() -> None:
    names = [f"img-{n:06}.jpg" for n in range(FILES)]

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == names
        assert m.store.take_requests()["list_page"] <= FILES // 1000 + 6

    mounted(run, store_of(*names))


def test_gaps_and_strangers_between_numbered_files_lose_nothing() -> None:
    names = [f"img-{n:06}.jpg" for n in range(9_000) if n not in (3500, 5001)]
    names = sorted([*names, "img-002500.txt", "img-0065", "zebra", "a"])

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == names

    mounted(run, store_of(*names))


class StartsAnywhere(FakeStore):
    """Ignores where a page should begin, as some stores do; continuation tokens work."""

    def list_page(self, query: ListQuery) -> ListPage:
        return super().list_page(replace(query, start_after=None))


def test_a_store_that_ignores_where_to_begin_is_listed_by_its_tokens() -> None:
    names = [f"{n:05}" for n in range(6_000)]
    store = StartsAnywhere()
    for name in names:
        store.seed(name, b"x")

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == names

    mounted(run, store)
