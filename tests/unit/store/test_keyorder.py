"""Where listings begin so that every store tells what is asked for."""

import random

import pytest

from ossfs_py.model import ListQuery
from ossfs_py.store.keyorder import is_behind, just_before
from tests.support.fake_store import FakeStore
from tests.support.tree_order_store import TreeOrderStore

NAMES = ("a", "d", "d-", "d-x", "d.y", "d/s", "d0", "d01", "d1", "d10", "e", "\ue000", "\u00e9")


@pytest.mark.parametrize("kind", [FakeStore, TreeOrderStore])
def test_a_listing_that_begins_just_before_a_directory_tells_all_of_it(
    kind: type[FakeStore],
) -> None:
    store = kind()
    for name in NAMES:
        for end in ("", "1", "s-x/1"):
            store.seed(f"b/{name}/{end}", b"x")
    for name in NAMES:
        prefix = f"b/{name}/"
        wanted = [key for key in sorted(store.objects) if key.startswith(prefix)]
        page = store.list_page(ListQuery("b/", delimiter="", start_after=just_before(prefix)))
        assert sorted(info.key for info in page.objects if info.key.startswith(prefix)) == wanted
        just_before(prefix).encode()
        assert is_behind(prefix, just_before(prefix))


@pytest.mark.parametrize("kind", [FakeStore, TreeOrderStore])
def test_what_is_behind_a_key_is_told_in_a_listing_that_begins_there(
    kind: type[FakeStore],
) -> None:
    store = kind()
    draw = random.Random(1)
    for name in NAMES:
        for end in ("", "1", "s-x/1"):
            store.seed(f"b/{name}/{end}", b"x")
    for start in draw.sample(store.keys(), 20):
        page = store.list_page(ListQuery("b/", delimiter="", start_after=start))
        told = {info.key for info in page.objects}
        assert {key for key in sorted(store.objects) if is_behind(key, start)} <= told
