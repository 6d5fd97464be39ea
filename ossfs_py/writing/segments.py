"""Small entries that survive the daemon's death: one after the other in a few files.

A record in a file of its own, made under another name and renamed, costs several system calls; an
append costs one. An entry that is not needed any more is marked so in place, which takes no room on
a full disk. A file is deleted when no entry in it is needed.
"""

import os
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

_HEADER = struct.Struct("<BB2xIIIQ16s")
"""State, kind, CRC-32 of everything after it, bytes of text, bytes of data, position, id."""
_CHECKED_FROM = 8
_UNCHECKED, _CHECKED = struct.Struct("<BB2xI"), struct.Struct("<IIQ16s")
"""The parts of it before that place, and behind it."""
_IDENT_BYTES = 16
_NEEDED, _DONE = 0x4E, 0x44
_LONGEST_BYTES = 4 * 1024**2
"""After this size, the next segment begins."""
_MANY_SEGMENTS = 8
"""With more segments, the entries of the first one are written anew, so that it can be deleted: one
file that stays open for days must not keep everything that was written beside it.
"""
_JOINED_BYTES = 4096
"""An entry with so few bytes is written from one place: copying them takes less than telling the
kernel of three.
"""
_SLOW_SECONDS = 0.05
_SLOW_FOR_SECONDS = 1.0
"""An append goes to the page cache and takes 25 us. One that took this long waited for a disk that
others keep busy; then threads make the appends for the same time. On a busy machine an append
sometimes takes 5 ms, as it waits for a processor or for the lock: a thread would wait as well.
"""


class EntryKind(IntEnum):
    """The meaning of an entry for its id. The numbers are on disk."""

    FILE = 1
    """A file: its record and all its bytes; replaces all earlier entries."""
    BYTES = 2
    """The file has these bytes at this position."""
    SIZE = 3
    """The file was truncated at this position."""
    RECORD = 4
    """The file has this record now."""
    MARKER = 5
    REMOVAL = 6
    RENAME = 7
    """Of a stored file. Versions that do not know it leave the file its old name."""


_KINDS = frozenset(int(kind) for kind in EntryKind)
_WHOLE = (EntryKind.FILE, EntryKind.MARKER, EntryKind.REMOVAL, EntryKind.RENAME)
"""Replace all earlier entries of their ids."""


@dataclass(slots=True)
class KeptEntry:
    """The state of an id, from all its entries."""

    kind: EntryKind
    text: str
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False)
class _Segment:
    path: Path
    fd: int
    end: int = 0
    needed: int = 0
    """Number of needed ids with entries in it."""
    is_synced: bool = True


@dataclass(slots=True, eq=False)
class _Needed:
    """An id whose entries are needed."""

    kind: EntryKind
    first: tuple[_Segment, int]
    segments: list[_Segment]
    text: str
    """Text of an entry that is not a file."""


class SegmentLog:
    """The segments of one state directory. Safe for concurrent use; reads and makes nothing before
    the first call.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.RLock()
        self._segments: list[_Segment] = []
        self._needed: dict[str, _Needed] = {}
        self._slow_until = 0.0
        self._are_names_synced = True

    @property
    def is_slow(self) -> bool:
        """Whether appends wait for the disk: use a thread."""
        return time.monotonic() < self._slow_until

    def note_write(self, began: float) -> None:
        """A few bytes were written to this disk since ``began``, by :func:`time.monotonic`."""
        now = time.monotonic()
        if now - began > _SLOW_SECONDS:
            self._slow_until = now + _SLOW_FOR_SECONDS

    def __contains__(self, ident: str) -> bool:
        """Whether an id is needed."""
        return ident in self._needed

    # -- writing ---------------------------------------------------------------------------------

    def put(self, kind: EntryKind, ident: str, text: str, data: bytes = b"") -> None:
        """Store an entry for an id; replaces its earlier entries.

        Raises:
            OSError: the disk is full, among others; the earlier entries still count.
        """
        with self._lock:
            self._put(kind, ident, text, data)
            self._thin_out()

    def add(self, ident: str, kind: EntryKind, position: int, text: str, data: bytes) -> None:
        """Add an entry to a file's; does nothing if the file is not needed any more.

        Raises:
            OSError: as :meth:`put`.
        """
        with self._lock:
            needed = self._needed.get(ident)
            if needed is None:
                return  # it was removed while a thread was on its way here
            segment, _ = self._append(kind, ident, text.encode(), data, position)
            if segment not in needed.segments:
                needed.segments.append(segment)
                segment.needed += 1
            self._thin_out()

    def drop(self, ident: str) -> bool:
        """The id is not needed any more; returns whether it was.

        Raises:
            OSError: the disk refused the write.
        """
        with self._lock:
            needed = self._needed.pop(ident, None)
            if needed is not None:
                self._done(needed)
            return needed is not None

    def sync(self) -> None:
        """Sync all appended entries, so that they survive a power loss."""
        with self._lock:
            wanted = [(segment, os.dup(segment.fd)) for segment in self._unsynced()]
            names, self._are_names_synced = not self._are_names_synced, True
        try:
            for segment, fd in wanted:
                segment.is_synced = True
                os.fsync(fd)
            if names:
                _sync_directory(self._directory)
        except OSError:
            with self._lock:
                self._are_names_synced = False
                for segment, _ in wanted:
                    segment.is_synced = False
            raise
        finally:
            for _, fd in wanted:
                os.close(fd)

    def close(self) -> None:
        """Leave the needed entries to the next mount."""
        with self._lock:
            segments, self._segments = self._segments, []
            for segment in segments:
                if not segment.needed:
                    segment.path.unlink(missing_ok=True)
                os.close(segment.fd)

    # -- present entries -------------------------------------------------------------------------

    def texts(self, kind: EntryKind) -> list[str]:
        """The texts of all ids of a kind."""
        with self._lock:
            return [each.text for each in self._needed.values() if each.kind is kind]

    def adopt(self) -> tuple[dict[str, KeptEntry], list[Path]]:
        """The files that an earlier daemon has left here, and the segments that can be removed once
        the files are kept elsewhere. Its other entries are kept here from now on.

        Raises:
            OSError: the disk is full, among others.
        """
        paths = _paths(self._directory)
        kept = replayed(paths)
        files = {ident: each for ident, each in kept.items() if each.kind is EntryKind.FILE}
        others = {ident: each for ident, each in kept.items() if ident not in files}
        for ident, each in others.items():
            self.put(each.kind, ident, each.text)
        if others:
            self.sync()
        return files, paths

    # -- inside ----------------------------------------------------------------------------------

    def _append(
        self, kind: EntryKind, ident: str, text: bytes, data: bytes, position: int = 0
    ) -> tuple[_Segment, int]:
        began = time.monotonic()
        checked = _CHECKED.pack(len(text), len(data), position, bytes.fromhex(ident))
        pieces: tuple[bytes, ...]
        if len(text) + len(data) <= _JOINED_BYTES:
            checked = b"".join((checked, text, data))
            pieces = (_UNCHECKED.pack(_NEEDED, kind, zlib.crc32(checked, kind)) + checked,)
        else:
            crc = zlib.crc32(data, zlib.crc32(text, zlib.crc32(checked, kind)))
            pieces = (_UNCHECKED.pack(_NEEDED, kind, crc) + checked, text, data)
        segment = self._current()
        offset = segment.end
        done = os.pwritev(segment.fd, pieces, offset)
        size = _HEADER.size + len(text) + len(data)
        if done < size:
            # The disk has no room for the rest, so it does not count: the next one overwrites it.
            whole = memoryview(b"".join(pieces))
            while done < size:
                done += os.pwritev(segment.fd, (whole[done:],), offset + done)
        segment.end = offset + done
        segment.is_synced = False
        self.note_write(began)
        return segment, offset

    def _put(self, kind: EntryKind, ident: str, text: str, data: bytes) -> None:
        segment, offset = self._append(kind, ident, text.encode(), data)
        before = self._needed.get(ident)
        kept = "" if kind is EntryKind.FILE else text
        segment.needed += 1
        self._needed[ident] = _Needed(kind, (segment, offset), [segment], kept)
        if before is not None:
            self._done(before)

    def _current(self) -> _Segment:
        if self._segments and self._segments[-1].end < _LONGEST_BYTES:
            return self._segments[-1]
        path = self._directory / f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}.log"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        made = _Segment(path, os.open(path, flags, 0o600))
        self._segments.append(made)
        self._are_names_synced = False
        self._remove_needless()
        return made

    def _done(self, needed: _Needed) -> None:
        segment, offset = needed.first
        os.pwrite(segment.fd, bytes((_DONE,)), offset)
        for each in needed.segments:
            each.needed -= 1
        if len(self._segments) > 1:
            self._remove_needless()

    def _remove_needless(self) -> None:
        for segment in [each for each in self._segments[:-1] if not each.needed]:
            self._segments.remove(segment)
            segment.path.unlink(missing_ok=True)
            os.close(segment.fd)

    def _thin_out(self) -> None:
        """Write the entries of the first of many segments anew."""
        if len(self._segments) <= _MANY_SEGMENTS:
            return
        oldest = self._segments[0]
        moving = [ident for ident, each in self._needed.items() if oldest in each.segments]
        kept = replayed([segment.path for segment in self._segments])
        for ident in moving:
            there = kept[ident]
            self._put(there.kind, ident, there.text, bytes(there.data))

    def _unsynced(self) -> list[_Segment]:
        return [segment for segment in self._segments if not segment.is_synced]


def new_ident() -> str:
    """An id that no other entry has, in hexadecimal digits; ``uuid4`` takes three times as long."""
    return os.urandom(_IDENT_BYTES).hex()


def count_files(directory: Path) -> int:
    """Number of files in its segments that a dead daemon was still writing, or had not sent."""
    kept = replayed(_paths(directory))
    return sum(1 for each in kept.values() if each.kind is EntryKind.FILE)


def replayed(paths: Iterable[Path]) -> dict[str, KeptEntry]:
    """The needed entries of these segments, by id, in the order of their last entries.

    A segment that was truncated or damaged counts up to that place.
    """
    kept: dict[str, KeptEntry] = {}
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        for entry in _entries(memoryview(content)):
            _apply(kept, entry)
    return kept


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: EntryKind
    ident: str
    is_needed: bool
    position: int
    text: str
    data: memoryview


def _apply(kept: dict[str, KeptEntry], entry: _Entry) -> None:
    kind, ident = entry.kind, entry.ident
    if kind in _WHOLE:
        kept.pop(ident, None)
        if entry.is_needed:
            kept[ident] = KeptEntry(kind, entry.text, bytearray(entry.data))
        return
    known = kept.get(ident)
    if known is None:
        return  # it belongs to a file that is not needed any more
    if entry.text:
        known.text = entry.text
    if kind is EntryKind.BYTES:
        missing = entry.position - len(known.data)
        if missing > 0:
            known.data += bytes(missing)
        known.data[entry.position : entry.position + len(entry.data)] = entry.data
    elif kind is EntryKind.SIZE:
        del known.data[entry.position :]


def _entries(content: memoryview) -> Iterator[_Entry]:
    start = 0
    while start + _HEADER.size <= len(content):
        state, kind, crc, text_bytes, data_bytes, position, ident = _HEADER.unpack_from(
            content, start
        )
        text_at = start + _HEADER.size
        data_at = text_at + text_bytes
        end = data_at + data_bytes
        if end > len(content) or crc != zlib.crc32(content[start + _CHECKED_FROM : end], kind):
            return
        # One of a kind that only another version knows hides none of those behind it.
        if kind in _KINDS:
            try:
                text = str(content[text_at:data_at], "utf-8")
            except ValueError:
                return
            is_needed, data = state == _NEEDED, content[data_at:end]
            yield _Entry(EntryKind(kind), ident.hex(), is_needed, position, text, data)
        start = end


def _paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
