"""The store in memory, of a bucket that keeps versions: every write and deletion stays listed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ossfs_py.errors import ObjectMissingError, VersionChangedError
from ossfs_py.model import (
    HistoryEntry,
    HistoryMark,
    HistoryPage,
    HistoryQuery,
    ObjectInfo,
    ObjectVersion,
)
from ossfs_py.store.base import Versioning
from tests.support.fake_store import NS_PER_SECOND, FakeStore, StoredObject


class VersionedStore(FakeStore):
    """One bucket with versioning. ``now_ns`` goes on by a second with each change."""

    def __init__(self, *, page_size: int = 1000, **options: int) -> None:
        super().__init__(page_size=page_size, **options)
        self.state: Versioning = "on"
        self.history: dict[str, list[tuple[HistoryEntry, bytes]]] = {}
        """By key, the newest first."""

    @property
    def now_ns(self) -> int:
        return self._clock_ns

    def versioning(self) -> Versioning:
        self._enter("versioning", "")
        return self.state

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo:
        if version_id is None:
            return super().head(key)
        self._enter("head", key)
        with self._lock:
            return self._kept(key, version_id).info

    def list_versions(self, query: HistoryQuery) -> HistoryPage:
        self._enter("list_versions", query.prefix)
        limit = min(query.max_entries, self._page_size)
        with self._lock:
            entries: list[HistoryEntry] = []
            prefixes: list[str] = []
            passed: HistoryMark | None = None
            for shown, entry in self._listed(query):
                if entry is None and shown in prefixes:
                    continue
                if len(entries) + len(prefixes) == limit:
                    return HistoryPage(tuple(entries), tuple(prefixes), passed)
                if entry is None:
                    prefixes.append(shown)
                    passed = HistoryMark(shown)
                else:
                    entries.append(entry)
                    passed = HistoryMark(shown, entry.version_id)
            return HistoryPage(tuple(entries), tuple(prefixes), None)

    def delete(self, key: str) -> None:
        super().delete(key)
        self._mark_deleted(key)

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        refused = super().delete_many(keys)
        for key in keys:
            if key not in refused:
                self._mark_deleted(key)
        return refused

    def erase(self, key: str) -> None:
        super().erase(key)
        self._mark_deleted(key)

    def delete_version(self, key: str, version_id: str) -> None:
        self._enter("delete_version", key)
        with self._lock:
            kept = [each for each in self.history[key] if each[0].version_id != version_id]
            self.history[key] = []
            for entry, content in reversed(kept):
                self._put_on_top(entry, content)
            self.objects.pop(key, None)
            if kept and kept[0][0].info is not None:
                self.objects[key] = StoredObject(kept[0][1], kept[0][0].info)

    # -- inside -----------------------------------------------------------------------------------

    def _listed(self, query: HistoryQuery) -> "list[tuple[str, HistoryEntry | None]]":
        """Each entry under its key, or under the common prefix it is folded into."""
        after = query.after
        found: list[tuple[str, HistoryEntry | None]] = []
        for key in sorted(self.history):
            if not key.startswith(query.prefix) or (after is not None and key < after.key):
                continue
            below = key[len(query.prefix) :]
            if query.delimiter and query.delimiter in below:
                common = query.prefix + below.partition(query.delimiter)[0] + query.delimiter
                if after is None or common > after.key:
                    found.append((common, None))
                continue
            entries = [entry for entry, _content in self.history[key]]
            if after is not None and key == after.key:
                ids = [entry.version_id for entry in entries]
                start = len(ids) if after.version_id is None else ids.index(after.version_id) + 1
                entries = entries[start:]
            found.extend((key, entry) for entry in entries)
        return found

    def _kept(self, key: str, version_id: str) -> StoredObject:
        for entry, content in self.history.get(key, []):
            if entry.version_id == version_id and entry.info is not None:
                return StoredObject(content, entry.info)
        raise ObjectMissingError("no such version", key=key)

    def _pinned(self, version: ObjectVersion) -> StoredObject:
        if version.version_id is None:
            return super()._pinned(version)
        try:
            return self._kept(version.key, version.version_id)
        except ObjectMissingError as exc:
            raise VersionChangedError("the version was removed", key=version.key) from exc

    def _write(
        self,
        key: str,
        content: bytes,
        metadata: Mapping[str, str],
        content_type: str | None,
        parts: int = 0,
    ) -> ObjectVersion:
        version = super()._write(key, content, metadata, content_type, parts)
        info = self.objects[key].info._replace(version_id=f"v{next(self._serial)}")
        self.objects[key] = StoredObject(content, info)
        pinned = info._replace(pinned=True)
        entry = HistoryEntry(key, info.version_id or "", True, info.mtime_ns, pinned)
        self._put_on_top(entry, content)
        return version

    def _mark_deleted(self, key: str) -> None:
        with self._lock:
            self._clock_ns += NS_PER_SECOND
            name = f"d{next(self._serial)}"
            self._put_on_top(HistoryEntry(key, name, True, self._clock_ns, None), b"")

    def _put_on_top(self, entry: HistoryEntry, content: bytes) -> None:
        older = [
            (replace(each, is_latest=False), kept) for each, kept in self.history.get(entry.key, [])
        ]
        self.history[entry.key] = [(replace(entry, is_latest=True), content), *older]
