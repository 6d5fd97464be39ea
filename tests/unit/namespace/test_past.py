"""A bucket as it was: each listing, each lookup and each read equals what was there then."""

import os
import resource
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ossfs_py.errors import EnvironmentProblemError, ObjectMissingError, VersionChangedError
from ossfs_py.model import (
    HistoryEntry,
    HistoryMark,
    HistoryPage,
    HistoryQuery,
    ListQuery,
    ObjectInfo,
)
from ossfs_py.namespace.past import PastCatalogue, check_history
from tests.support.fake_store import NS_PER_SECOND
from tests.support.filesystems import Mounted, on_mount
from tests.support.mounting import DATA_PATHS
from tests.support.versioned_store import VersionedStore

HISTORIES = int(os.environ.get("OSSFS_PY_HISTORIES", "15"))
MOUNTED_MOMENTS = 20 if "OSSFS_PY_HISTORIES" in os.environ else 2
MOMENTS = 20
MIB = 1024**2
KEYS = ("a", "b", "dir/a", "dir/b", "dir/sub/deep", "dir.txt", "dirs/x", "dir/", "new+ %41")
"""With names around a directory's, its marker, and what has to be quoted."""

Tree = dict[str, bytes]


@dataclass
class Told:
    """What happened, told by who did it: an independent account."""

    moments: list[tuple[int, Tree]] = field(default_factory=list)

    def note(self, store: VersionedStore, tree: Tree) -> None:
        self.moments.append((store.now_ns, dict(tree)))

    def at(self, at_ns: int) -> Tree:
        return next((tree for time_ns, tree in reversed(self.moments) if time_ns <= at_ns), {})


@st.composite
def histories(draw: st.DrawFn) -> tuple[VersionedStore, Told]:
    store = VersionedStore(page_size=draw(st.integers(1, 7)))
    told, tree = Told(), Tree()
    for number in range(draw(st.integers(1, 25))):
        key = draw(st.sampled_from(KEYS))
        before = tree.get(key)
        if draw(st.booleans()) or before is None:
            tree[key] = b"" if key.endswith("/") else b"%d of %s" % (number, key.encode())
            store.seed(key, tree[key], metadata={"number": str(number)})
        else:
            del tree[key]
            store.erase(key)
            if draw(st.booleans()):  # undeleted
                told.note(store, tree)
                tree[key] = before
                store.seed(key, before)
        told.note(store, tree)
    return store, told


def moments(told: Told, wanted: int) -> list[int]:
    """Times from before the first change until after the last, and right at changes."""
    first, last = told.moments[0][0] - NS_PER_SECOND, told.moments[-1][0] + NS_PER_SECOND
    return [first + (last - first) * step // (wanted - 1) for step in range(wanted)]


def everything(
    past: PastCatalogue, prefix: str = "", delimiter: str = ""
) -> tuple[list[str], list[str]]:
    keys: list[str] = []
    prefixes: list[str] = []
    token = None
    while True:
        page = past.list_page(ListQuery(prefix, delimiter, token))
        keys += [info.key for info in page.objects]
        prefixes += page.prefixes
        token = page.next_token
        if token is None:
            return keys, prefixes


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_every_listing_and_every_head_is_as_of_the_moment(
    made: tuple[VersionedStore, Told],
) -> None:
    store, told = made
    for at_ns in moments(told, MOMENTS):
        tree = told.at(at_ns)
        past = PastCatalogue(store, at_ns)
        assert everything(past) == (sorted(tree), [])
        names, directories = everything(past, delimiter="/")
        assert names == sorted(key for key in tree if "/" not in key)
        assert directories == sorted({key.partition("/")[0] + "/" for key in tree if "/" in key})
        assert everything(past, "dir/")[0] == sorted(key for key in tree if key.startswith("dir/"))
        found = bool(past.list_page(ListQuery("dir/", max_keys=1)).objects)
        below = past.list_page(ListQuery("dir/", max_keys=1))
        assert (found or bool(below.prefixes)) == any(key.startswith("dir/") for key in tree)
        for key in KEYS:
            if key not in tree:
                with pytest.raises(ObjectMissingError):
                    past.head(key)
                continue
            info = past.head(key)
            content = bytearray(info.size)
            store.get_range_into(info.version, 0, memoryview(content))
            assert content == tree[key]


@settings(
    max_examples=max(1, HISTORIES // 3), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(made=histories())
def test_a_mount_of_a_moment_equals_the_model_over_each_data_path(
    made: tuple[VersionedStore, Told], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, told = made
    for at_ns in moments(told, MOUNTED_MOMENTS + 1)[1:]:
        tree = told.at(at_ns)
        # A key that another's directory stands on is hidden, as on every mount.
        files = {key: content for key, content in tree.items() if not key.endswith("/")}

        async def test(fs: Mounted) -> None:
            assert await walked(fs, ()) == files  # noqa: B023 - called in this round only

        for path in DATA_PATHS:
            work = tmp_path_factory.mktemp(path)
            on_mount(path, work, test, store=store, read_only=True, at_ns=at_ns)


async def walked(fs: Mounted, directory: tuple[str, ...]) -> Tree:
    found = Tree()
    for name in await fs.names(directory):
        path = (*directory, name)
        if (await fs.stat(path)).mode & 0o40000:
            found |= await walked(fs, path)
        else:
            found["/".join(path)] = await fs.read_file(path)
    return found


def test_a_directory_among_many_names_that_begin_like_it_is_found() -> None:
    """As a lookup asks that expects nothing: sixteen namesakes, and what there is beside them."""
    store = VersionedStore()
    for number in range(30):
        store.seed(f"x{number:02}", b"a namesake")
    store.seed("x/inside", b"content")
    page = PastCatalogue(store, store.now_ns).list_page(ListQuery("x", max_keys=16))
    assert "x/" in page.prefixes


def test_reading_a_version_that_was_removed_meanwhile_is_stale(tmp_path: Path) -> None:
    """As lifecycle rules do, also during a listing."""
    store = VersionedStore()
    store.seed("file", bytes(64 * MIB))
    at_ns = store.now_ns
    store.seed("file", b"now")

    async def test(fs: Mounted) -> None:
        assert await fs.names() == ["file"]
        opened = await fs.open(("file",))
        assert await fs.read(opened, 0, 4096) == bytes(4096)
        store.delete_version("file", store.history["file"][1][0].version_id)
        with pytest.raises(VersionChangedError):
            await fs.read(opened, 60 * MIB, 4096)
        await fs.release(opened)
        await fs.expire()
        assert await fs.names() == []

    on_mount("direct", tmp_path, test, store=store, read_only=True, at_ns=at_ns)


class ManyKeys:
    """Lists ``keys`` keys in directories of 10,000, each with three versions; keeps none."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.requests = 0

    def list_versions(self, query: HistoryQuery) -> HistoryPage:
        self.requests += 1
        after, prefix = query.after, query.prefix
        number, version = 0, 0
        if prefix:
            number = int(prefix[1:5]) * 10_000
        if after is not None:
            number = int(after.key[1:5]) * 10_000 + int(after.key[6:] or 0)
            if query.delimiter and not prefix:
                number += 10_000
            version = int(after.version_id or -1) + 1
        end = min(self.keys, int(prefix[1:5]) * 10_000 + 10_000) if prefix else self.keys
        entries: list[HistoryEntry] = []
        if query.delimiter and not prefix:
            found = tuple(f"d{each:04}/" for each in range(number // 10_000, self.keys // 10_000))
            return HistoryPage((), found, None)
        while number < end and len(entries) < query.max_entries:
            key = f"d{number // 10_000:04}/{number % 10_000:06}"
            time_ns = (3 - version) * NS_PER_SECOND
            info = ObjectInfo(key, 5, f"{version}", time_ns, version_id=str(version), pinned=True)
            entries.append(HistoryEntry(key, str(version), version == 0, time_ns, info))
            number, version = (number, version + 1) if version < 2 else (number + 1, 0)
        is_last = number >= end
        last = entries[-1]
        following = None if is_last else HistoryMark(last.key, last.version_id)
        return HistoryPage(tuple(entries), (), following)


def walk_of_many(keys: int) -> tuple[float, int]:
    """Requests for one that ListObjectVersions needs, and KiB that memory grew by at its peak."""
    store = ManyKeys(keys)
    past = PastCatalogue(store, 2 * NS_PER_SECOND)  # type: ignore[arg-type]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = 0
    for directory in past.list_page(ListQuery("")).prefixes:
        token = None
        while True:
            page = past.list_page(ListQuery(directory, token=token))
            found += sum(info.etag == "1" for info in page.objects)
            token = page.next_token
            if token is None:
                break
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found == keys
    return store.requests / (3 * keys / 1000), grown


def test_a_listing_of_many_versions_takes_no_more_memory_and_few_more_requests() -> None:
    """1,000,000 keys with OSSFS_PY_SCALE, as ``make scale`` sets it."""
    keys = 1_000_000 if os.environ.get("OSSFS_PY_SCALE") else 20_000
    share, grown_kib = walk_of_many(keys)
    assert share <= 1.2
    assert grown_kib < 32 * 1024


def test_a_bucket_without_a_past_is_refused_in_one_sentence() -> None:
    store = VersionedStore()
    store.seed("file", b"old")
    at_ns = store.now_ns
    assert check_history(store, "", at_ns) is None
    with pytest.raises(EnvironmentProblemError, match="no version that is as old as --at says"):
        check_history(store, "", at_ns - NS_PER_SECOND)
    store.state = "suspended"
    assert "is suspended" in (check_history(store, "", at_ns) or "")
    store.state = "off"
    with pytest.raises(EnvironmentProblemError, match="keeps no versions"):
        check_history(store, "", at_ns)


def test_of_a_large_bucket_each_directory_is_looked_at_for_a_version_that_old() -> None:
    """None of the first pages has one; where no page has, the mount is refused, not guessed."""
    store = VersionedStore(page_size=2)
    store.seed("team/old/file", b"old")
    moment_ns = store.now_ns
    for number in range(60):
        store.seed(f"a/{number}", b"young")
        store.seed(f"team/log/{number}", b"young")
    assert check_history(store, "", moment_ns) is None
    store.take_requests()
    with pytest.raises(EnvironmentProblemError, match="nobody can tell whether it kept versions"):
        check_history(store, "a/", moment_ns - 1)
    assert store.take_requests()["list_versions"] <= 2 * 5 * 10
    with pytest.raises(EnvironmentProblemError, match="has no version that is as old"):
        check_history(VersionedStore(), "", moment_ns)


def test_what_was_written_before_versions_were_kept_proves_nothing() -> None:
    store = VersionedStore()
    store.seed("file", b"old")
    (entry, content), *_ = store.history["file"]
    store.history["file"] = [
        (HistoryEntry("file", "null", True, entry.mtime_ns, entry.info), content)
    ]
    with pytest.raises(EnvironmentProblemError, match="switched on later"):
        check_history(store, "", store.now_ns)
    store.seed("elsewhere", b"with a version")
    assert check_history(store, "fi", store.now_ns) is None
