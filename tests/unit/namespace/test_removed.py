"""Listings without what was removed here: which directories are left, and what that costs."""

import pytest

from ossfs_py.model import ListQuery, ObjectInfo
from ossfs_py.namespace.removed import CatalogueWithoutRemoved, RemovedKeys
from tests.support.fake_store import FakeStore


class Removal:
    """An object that was removed here."""

    def __init__(self, info: ObjectInfo) -> None:
        self.key = info.key
        self._etag = info.etag

    def hides(self, info: ObjectInfo) -> bool:
        return info.etag == self._etag

    async def give_way(self) -> None:
        raise AssertionError("nobody stores anything here")


def removed_from(store: FakeStore, keys: list[str]) -> CatalogueWithoutRemoved:
    removed = RemovedKeys()
    for key in keys:
        removed.add(Removal(store.head(key)))
    store.take_requests()
    return CatalogueWithoutRemoved(store, removed)


@pytest.mark.parametrize("directories", [2, 3, 50])
def test_directories_go_with_all_that_was_removed_in_them(directories: int) -> None:
    store = FakeStore()
    keys = [f"t/d{number % directories:02}/{number:03}" for number in range(200)]
    for key in keys:
        store.seed(key, key.encode())
    seen = removed_from(store, keys)
    assert seen.list_page(ListQuery("t/")).prefixes == ()
    assert store.take_requests()["list_page"] <= 1 + min(directories, 2)
    store.seed("t/d01/another's", b"")
    assert seen.list_page(ListQuery("t/")).prefixes == ("t/d01/",)


def test_what_a_page_has_no_room_for_is_asked_for_by_directory() -> None:
    store = FakeStore()
    keys = [f"t/d{number % 4}/{number:05}" for number in range(1200)]
    for key in keys:
        store.seed(key, key.encode())
    store.seed("t/d3/zz", b"")
    seen = removed_from(store, [key for key in keys if not key.startswith("t/d2/")])
    page = seen.list_page(ListQuery("t/"))
    assert page.prefixes == ("t/d2/", "t/d3/")
