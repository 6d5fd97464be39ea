"""Which objects a removal deletes, and what its record keeps."""

from dataclasses import replace

import pytest

from ossfs_py.model import ObjectInfo
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.removals import RemovalRecord, delete_removed
from tests.support.fake_store import FakeStore

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
READ = RemovalRecord("key", ("etag",), mtime_ns=NOW + 5, at_ns=NOW + 60 * SECOND)
STORED = RemovalRecord("key", ("old",), unheard_size=7, at_ns=NOW)


def info(etag: str, *, size: int = 7, mtime_ns: int = NOW) -> ObjectInfo:
    return ObjectInfo("key", size, etag, mtime_ns)


@pytest.mark.parametrize(
    ("record", "found", "expected"),
    [
        (READ, info("etag"), True),
        (READ, info("etag", mtime_ns=NOW + 900_000_000), True),
        # The same bytes, stored again by others.
        (READ, info("etag", mtime_ns=NOW + SECOND), False),
        (READ, info("another"), False),
        (replace(READ, mtime_ns=None), info("etag", mtime_ns=NOW + SECOND), True),
        # An upload under way may have made an object of that size, at about that time.
        (STORED, info("new"), True),
        (STORED, info("old", size=1), True),
        (STORED, info("new", size=8), False),
        (STORED, info("new", mtime_ns=NOW + 3600 * SECOND), False),
        (STORED, info("new", mtime_ns=NOW - 3600 * SECOND), False),
    ],
)
def test_the_removed_object_is_told_from_what_others_stored(
    record: RemovalRecord, found: ObjectInfo, expected: bool
) -> None:
    assert record.is_of(found) is expected


def test_a_record_outlives_its_mount_and_a_damaged_one_does_no_harm(tmp_path) -> None:
    record = RemovalRecord("a/ü", ("etag",), mtime_ns=1, unheard_size=0, markers=("a/",))
    journal = Journal(tmp_path / "state")
    journal.record_removal(record)
    (tmp_path / "state" / "removals" / "other.json").write_text('{"key": ')
    journal.close()
    following = Journal(tmp_path / "state")
    assert following.leftover_removals() == [record]
    following.forget_removal(record)
    assert following.leftover_removals() == []
    assert [*(tmp_path / "state" / "removals").iterdir()] == []
    following.close()


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        (["dir/", "dir/file"], []),
        (["dir/", "dir/file", "dir/other"], ["dir/", "dir/other"]),
        (["dir/other"], ["dir/other"]),
        ([], []),
    ],
)
def test_markers_go_with_the_last_object_below_them(keys: list[str], left: list[str]) -> None:
    store = FakeStore()
    made = {key: store.seed(key) for key in keys}
    etags = (made["dir/file"].etag,) if "dir/file" in made else ("gone",)
    record = RemovalRecord("dir/file", etags, markers=("dir/",))
    assert delete_removed(store, record) is ("dir/file" in keys)
    assert store.keys() == left
