"""Listings of versions where the server goes through directories: all is told, and told once."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import HistoryEntry, HistoryMark, HistoryPage, HistoryQuery
from ossfs_py.store.s3.bydirectory import ByDirectory
from tests.support.scripted_server import ScriptedServer, Step, reply, store_for

NAMES = st.text("ab-.+0", min_size=1, max_size=3)
KEYS = st.builds("/".join, st.lists(NAMES, min_size=1, max_size=3))
VERSIONS = ("new", "old")


class DirectoryServer:
    """Lists as SeaweedFS 4.48 was seen to: as many as a page holds and one more, in the order of
    its directories, of the keys that are behind the mark; put in order and cut then."""

    def __init__(self, keys: set[str], page_size: int) -> None:
        # No directory is a file's namesake there.
        self.keys = sorted(
            (key for key in keys if not any(other.startswith(f"{key}/") for other in keys)),
            key=lambda key: key.split("/"),
        )
        self.page_size = page_size

    def ask(self, query: HistoryQuery) -> HistoryPage:
        limit = min(self.page_size, query.max_entries)
        found: dict[tuple[str, str], HistoryEntry | None] = {}
        for key in self.keys:
            for place, version in enumerate(VERSIONS):
                told = self._told(key, version, place, query)
                if told is not None and len(found) <= limit:
                    found.setdefault(*told)
        told_keys = sorted(found, key=lambda one: one[0])
        cut = told_keys[:limit]
        entries = tuple(entry for one in cut if (entry := found[one]) is not None)
        prefixes = tuple(one[0] for one in cut if found[one] is None)
        last = HistoryMark(cut[-1][0], cut[-1][1] or None) if len(cut) < len(told_keys) else None
        return HistoryPage(entries, prefixes, last)

    def _told(
        self, key: str, version: str, place: int, query: HistoryQuery
    ) -> tuple[tuple[str, str], HistoryEntry | None] | None:
        if not key.startswith(query.prefix):
            return None
        after = query.after
        name, slash, _ = key[len(query.prefix) :].partition("/")
        if query.delimiter and slash:
            folded = f"{query.prefix}{name}/"
            directory = folded.rstrip("/")
            if after is not None and (folded <= after.key or directory < after.key):
                return None
            return (folded, ""), None
        if after is not None and key == after.key and after.version_id is not None:
            if place <= VERSIONS.index(after.version_id):
                return None
        elif after is not None and key <= after.key:
            return None
        return (key, version), HistoryEntry(key, version, place == 0, 0, None)


def told(server: DirectoryServer, query: HistoryQuery) -> list[str]:
    listing, found = ByDirectory(server.ask), []
    while True:
        page = listing.page(query)
        assert len(page.entries) <= query.max_entries
        found += [f"{entry.key} {entry.version_id}" for entry in page.entries]
        found += page.prefixes
        if page.following is None:
            return found
        query = replace(query, after=page.following)


def test_the_server_loses_names_without_it() -> None:
    """As the real one does: see the contract suite's test of names beside a directory."""
    server = DirectoryServer({"dir/a", "dir-x"}, page_size=1)
    keys, after = set(), None
    while True:
        page = server.ask(HistoryQuery("", after=after))
        keys |= {entry.key for entry in page.entries}
        after = page.following
        if after is None:
            break
    assert keys == {"dir/a"}


@given(st.sets(KEYS, max_size=12), st.integers(1, 7), st.integers(1, 7), st.data())
def test_flat_pages_of_any_size_tell_each_version_once_and_in_order(
    keys: set[str], page_size: int, wanted: int, data: st.DataObject
) -> None:
    server = DirectoryServer(keys, page_size)
    prefix = data.draw(st.sampled_from(["", "a", "a/", "a-", "b/a"]))
    expected = [
        f"{key} {version}"
        for key in sorted(server.keys)
        if key.startswith(prefix)
        for version in VERSIONS
    ]
    assert told(server, HistoryQuery(prefix, max_entries=wanted)) == expected


@given(st.sets(KEYS, max_size=12), st.integers(1, 7), st.sampled_from(["", "a/", "a", "b/a/"]))
@example({"--.", "-/0", "--/0"}, 1, "")  # "--." comes behind two directories, and before the mark
@example({"dir-x", "dir/a"}, 1, "")
def test_pages_of_a_directory_tell_each_name_once(
    keys: set[str], page_size: int, prefix: str
) -> None:
    server = DirectoryServer(keys, page_size)
    expected = set()
    for key in server.keys:
        if key.startswith(prefix):
            name, slash, _ = key[len(prefix) :].partition("/")
            if slash:
                expected.add(f"{prefix}{name}/")
            else:
                expected |= {f"{key} {version}" for version in VERSIONS}
    found = told(server, HistoryQuery(prefix, "/", max_entries=page_size))
    assert sorted(found) == sorted(expected)


def listed(truncated: bool) -> Step:
    more = "<NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>1</NextVersionIdMarker>"
    body = (
        f"<ListVersionsResult><IsTruncated>{str(truncated).lower()}</IsTruncated>"
        f"{more if truncated else ''}<Version><Key>a</Key><VersionId>1</VersionId>"
        "<IsLatest>true</IsLatest><LastModified>2026-01-01T00:00:00Z</LastModified>"
        '<ETag>"e"</ETag><Size>1</Size></Version></ListVersionsResult>'
    )
    return reply(200, body.encode(), {"server": "SeaweedFS 4.48"})


def test_who_looks_for_any_version_asks_once_also_where_pages_lose_names() -> None:
    turns = [[listed(truncated)] for truncated in (True, True, True, False)]
    with ScriptedServer([turns]) as server:
        store = store_for(server.url)
        for asked in (1, 2):
            page = store.list_versions(HistoryQuery("", sample=True))
            assert [entry.key for entry in page.entries] == ["a"]
            assert len(server.requests) == asked
        # Everything is put together by directory: the page that goes on is not believed.
        page = store.list_versions(HistoryQuery(""))
        assert page.following is None
        assert "delimiter=%2F" in server.requests[-1].target
        store.close()


def test_a_listing_that_goes_in_circles_ends() -> None:
    mark = HistoryMark("a", "new")
    page = HistoryPage((HistoryEntry("a", "new", True, 0, None),), (), mark)
    with pytest.raises(StoreUnavailableError, match="in circles"):
        ByDirectory(lambda _query: page).page(HistoryQuery(""))
