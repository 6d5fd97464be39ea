"""The state of a mount that outlives its daemon: written as it changes, read by the next daemon.

The kernel keeps using its numbers of inodes and handles, so the next daemon must know their
meaning. For an inode it needs the place in the tree and the number of the kernel's references;
everything else is read from the store again. For an open file it needs the version, as programs
have read bytes of it. For an open directory it needs the last name, as the listing is started anew.
A record is written before the kernel is answered. If a daemon dies between the two, an inode stays
known for too long, or an open file stays open, and nothing worse.
"""

import json
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.filesystem.filerecords import FileRecords, LeftOpen
from ossfs_py.filesystem.handle import Handle
from ossfs_py.namespace.inode import Inode, InodeTable, Kind
from ossfs_py.runtime.ledger import LedgerError, NumberedRecords, Record, StateTable

_INODE = struct.Struct("=QQQQIBBH")
"""References (first, as they are overwritten in place), number, directory, order of making,
generation, kind, flags (``_TRANSIENT`` and so on), length of the name; the name follows.
"""
_TRANSIENT, _REMOVED, _STALE, _LOCAL = 1, 2, 4, 8
"""Its number is this mount's own; it has no name any more; others took its name; it is not stored
yet.
"""
_ASKED = struct.Struct("=QQ")
"""A kernel request that makes or moves a name, and the time when it was taken up, in ns."""
_OPEN = struct.Struct("=QQ")
"""The kernel request that opened it, number; JSON follows."""
_NEGOTIATED = struct.Struct("=III")
"""Length of the request and of both answers, which follow."""
_HEAD = struct.Struct("=Q")
_NO_REQUEST = 0

_KINDS = tuple(Kind)
_EMPTY = (Kind.DIRECTORY, Kind.SYMLINK)
"""Kinds of objects without bytes: they are never open, and write-back may not have stored them yet.
"""
_NUMBER_OF_KIND = {kind: number for number, kind in enumerate(_KINDS)}


class SurvivalError(EnvironmentProblemError):
    """The state of an earlier daemon cannot be continued, now or later."""


class _Kept(IntEnum):
    """The kinds of records."""

    FACTS = 1
    NEGOTIATED = 2
    INODE = 3
    FILE = 4
    DIRECTORY = 5
    ASKED = 6
    LOCAL_ENTRY = 7


@dataclass(frozen=True, slots=True)
class MountIdentity:
    """The properties of a mount that the next daemon must share, as the numbers depend on them."""

    source: str
    mountpoint: str
    """As the user gave it."""
    endpoint: str
    state: str = ""
    """The state directory, with the unsaved writes; "" for a read-only mount."""


@dataclass(frozen=True, slots=True)
class FoundOut:
    """Facts that the first daemon found out for all later ones."""

    mountpoint: str
    """The resolved path. Resolving it again would ask the mount, which has no daemon yet."""
    at_ns: int | None
    """The moment that is shown; "3 days ago" keeps its meaning."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The start of the FUSE session: INIT, the answer of libfuse, and the answer to the kernel."""

    request: bytes
    answered: bytes
    told: bytes


class Survival:
    """The records of one mount. Belongs to the trio thread."""

    def __init__(self, ledger: StateTable) -> None:
        """Read the records of an earlier daemon, if there was one.

        Raises:
            SurvivalError: they cannot be used.
        """
        self._ledger = ledger
        self._inodes = NumberedRecords(ledger, _Kept.INODE)
        self._files = NumberedRecords(ledger, _Kept.FILE)
        self._directories = NumberedRecords(ledger, _Kept.DIRECTORY)
        self._passed: dict[int, tuple[int, list[tuple[int, str]]]] = {}
        """By handle: the directory, and the last two places where a listing was interrupted."""
        self._requests: dict[int, int] = {}
        self._asked = NumberedRecords(ledger, _Kept.ASKED)
        self._asked_before: dict[int, int] = {}
        self._locals = NumberedRecords(ledger, _Kept.LOCAL_ENTRY)
        self._made = 0
        self._table: InodeTable | None = None
        self.negotiated: Negotiated | None = None
        """The argument of :meth:`note_negotiated`, here or in an earlier daemon."""
        self.lock: int | None = None
        """The descriptor of a lock that also outlives the daemon, if there is one."""
        self._found = ledger.take_found()
        self.writers = FileRecords(ledger, self._found, self._stored)
        """The open files of a mount for writing."""
        self._before: dict[str, Any] | None = None
        self._facts: dict[str, Any] = {}
        self.left = LeftOpen({}, {}, {})
        """The files that an earlier daemon had open for writing, after a call of :meth:`serve`."""
        with sensible():
            for record in self._found:
                if record.kind == _Kept.FACTS:
                    self._before = _json(record.content)
                elif record.kind == _Kept.NEGOTIATED:
                    self.negotiated = _negotiated(record.content)

    @property
    def found_out(self) -> FoundOut | None:
        """The facts that the earlier daemon knew; None if there was none.

        Raises:
            SurvivalError: the records make no sense.
        """
        if self._before is None:
            return None
        with sensible():
            return FoundOut(**self._before["found_out"])

    def serve(self, facts: MountIdentity, found_out: FoundOut) -> None:
        """Begin to serve this mount.

        Raises:
            SurvivalError: the earlier daemon served another one.
        """
        now = asdict(facts)
        self._facts = {**now, "found_out": asdict(found_out), "ident": uuid.uuid4().hex}
        before = self._facts if self._before is None else self._before
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise SurvivalError(
                "the mount of the daemon before cannot be taken over with another"
                f" {' and '.join(changed)}"
            )
        with sensible():
            self.writers.ident = str(before["ident"])
            self.left = self.writers.take_in()

    # -- records written as things happen -------------------------------------------------------

    def note_negotiated(self, negotiated: Negotiated) -> None:
        """The FUSE session with the kernel has begun."""
        self.negotiated = negotiated
        parts = (negotiated.request, negotiated.answered, negotiated.told)
        head = _NEGOTIATED.pack(*map(len, parts))
        self._ledger.put(_Kept.NEGOTIATED, head + b"".join(parts))

    def told(self, inode: Inode) -> None:
        """The kernel gets references to an inode."""
        if not self._inodes.set_number(inode.number, inode.lookup_count):
            self._write_inode(inode)

    def moved(self, inode: Inode) -> None:
        """An inode has another name, has no name any more, or is in the store now."""
        if inode.number in self._inodes:
            self._write_inode(inode)

    def _write_inode(self, inode: Inode, *, is_local: bool | None = None) -> None:
        is_local = inode.local if is_local is None else is_local
        self._made += 1
        name = inode.name.encode("utf-8", "surrogatepass")
        what = _TRANSIENT * inode.transient | _REMOVED * inode.removed
        what |= _STALE * inode.stale | _LOCAL * is_local
        content = _INODE.pack(
            *(inode.lookup_count, inode.number),
            inode.parent.number if inode.parent is not None else 0,
            self._made,
            self._table.generation(inode) if self._table is not None else 0,
            *(_NUMBER_OF_KIND[inode.kind], what, len(name)),
        )
        if inode.local and inode.kind in _EMPTY and inode.number not in self._locals:
            told = _HEAD.pack(inode.number) + json.dumps(dict(inode.metadata or {})).encode()
            self._locals.write(inode.number, told)
        self._inodes.write(inode.number, content + name)

    def _stored(self, inode: Inode) -> None:
        """An inode that was only known here is in the store now."""
        if inode.local and inode.number in self._inodes:
            self._write_inode(inode, is_local=False)

    def forgot(self, inode: Inode) -> None:
        """The kernel dropped references to an inode."""
        if inode.lookup_count:
            self._inodes.set_number(inode.number, inode.lookup_count)
        else:
            self._inodes.drop(inode.number)
            self._locals.drop(inode.number)

    def asked(self, unique: int, now_ns: int) -> None:
        """A request that makes or moves a name is taken up."""
        self._asked.write(unique, _ASKED.pack(unique, now_ns))

    def answered(self, unique: int) -> None:
        """That request is answered."""
        self._asked.drop(unique)

    def asked_at_ns(self, unique: int) -> int | None:
        """When an earlier daemon took up that request; None if it never did."""
        return self._asked_before.get(unique)

    def opened(self, number: int, handle: Handle) -> None:
        """A descriptor is new, or its file is of another version now."""
        version = handle.opened.file.version
        if handle.changes or version is None:
            return
        info = handle.opened.inode.info
        told = {
            "inode": handle.opened.inode.number,
            "uid": handle.uid,
            "key": version.key,
            "etag": version.etag,
            "size": version.size,
            "version_id": version.version_id,
            "mtime_ns": info.mtime_ns if info is not None else 0,
            "may_be_link": handle.opened.may_be_link,
        }
        self._files.write(number, _told_of(number, told))

    def asked_by(self, number: int, unique: int) -> None:
        """Record the kernel request that a descriptor was made for."""
        if not self._files.set_number(number, unique):
            self.writers.asked_by(number, unique)

    def opened_for(self, unique: int) -> int | None:
        """The descriptor that an earlier daemon made for a request, and may not have reported.
        Returns it only once.
        """
        number = self._requests.pop(unique, None)
        return self.writers.opened_for(unique) if number is None else number

    def released(self, number: int) -> None:
        """A descriptor was released."""
        self._files.drop(number)

    def directory_opened(self, number: int, directory: Inode) -> None:
        """A directory handle was made."""
        self._passed[number] = (directory.number, [])
        self._write_directory(number)

    def directory_passed(self, number: int, offset: int, name: str) -> None:
        """The entries up to ``name`` were read; the next entry is at ``offset``."""
        directory, places = self._passed.get(number, (0, []))
        if directory:
            # Keep two, as the answer may not have been sent: the kernel then asks from the first
            # one.
            self._passed[number] = (directory, [*places[-1:], (offset, name)])
            self._write_directory(number)

    def directory_released(self, number: int) -> None:
        """A directory handle was released."""
        self._passed.pop(number, None)
        self._directories.drop(number)

    def _write_directory(self, number: int) -> None:
        directory, places = self._passed[number]
        told = {"inode": directory, "places": places}
        self._directories.write(number, _told_of(number, told))

    # -- use by the next daemon -------------------------------------------------------------------

    def begin(self, table: InodeTable) -> None:
        """Restore the recorded inodes into ``table``, and record its inodes from now on.

        Raises:
            SurvivalError: the records make no sense.
        """
        self._table = table
        with sensible():
            if self._before is not None:
                table.own_generation = int(self._before["own_generation"])
            self._take_in_inodes(table)
            for record in self._of(_Kept.ASKED):
                unique, at_ns = _ASKED.unpack(record.content)
                self._asked.found(unique, record.place)
                self._asked_before[unique] = at_ns
        if self._before is None:
            facts = {**self._facts, "own_generation": table.own_generation}
            self._ledger.put(_Kept.FACTS, json.dumps(facts).encode())
        table.witness = self

    def _take_in_inodes(self, table: InodeTable) -> None:
        found: dict[int, tuple[Any, ...]] = {}
        for record in self._of(_Kept.INODE):
            fields = _INODE.unpack_from(record.content)
            name = record.content[_INODE.size : _INODE.size + fields[-1]]
            before, number = found.get(fields[1]), fields[1]
            if before is not None and before[3] > fields[3]:
                self._ledger.drop(record.place)  # its daemon was killed while it wrote it anew
                continue
            found[number] = (*fields[:-1], name.decode("utf-8", "surrogatepass"))
            self._inodes.found(number, record.place)
        self._made = max((fields[3] for fields in found.values()), default=0)
        local_entries = self._take_in_local_entries()
        named = (*self.left.opened.values(), *self.left.closed.values())
        kept = {told["inode"] for told in named} | set(local_entries)
        nameless = {
            number
            for number, fields in found.items()
            if fields[6] & _REMOVED or (fields[6] & _LOCAL and number not in kept)
        }
        # If two had one name in turn, the later one has it.
        owners = {
            (fields[2], fields[-1]): number
            for number, fields in sorted(found.items(), key=lambda item: item[1][3])
            if number not in nameless
        }
        for number in found:
            chain: list[int] = []
            above = number
            while above in found and table.find(above) is None and above not in chain:
                chain.append(above)
                above = found[above][2]  # its directory first
            for each in reversed(chain):
                count, _, parent, _, generation, kind, what, name = found[each]
                directory = table.find(parent)
                inode = Inode(each, directory, name, _KINDS[kind])
                inode.transient = bool(what & _TRANSIENT)
                inode.generation = generation
                if each in nameless:
                    inode.removed, inode.stale = True, bool(what & _STALE)
                elif owners[parent, name] != each or directory is None or directory.removed:
                    inode.removed = inode.stale = True
                elif each in local_entries and what & _LOCAL:
                    inode.local, inode.metadata = True, local_entries[each]
                table.adopt(inode, count)

    def _take_in_local_entries(self) -> dict[int, dict[str, str]]:
        found = {}
        for record in self._of(_Kept.LOCAL_ENTRY):
            (number,) = _HEAD.unpack_from(record.content)
            self._locals.found(number, record.place)
            told = _json(record.content[_HEAD.size :])
            found[number] = {str(name): str(value) for name, value in told.items()}
        return found

    def files(self) -> dict[int, dict[str, Any]]:
        """The records of open files, by number, in the order of opening.

        Raises:
            SurvivalError: the records make no sense.
        """
        found = {}
        with sensible():
            for record in self._of(_Kept.FILE):
                unique, number, told = _opened(record)
                found[number] = told
                self._files.found(number, record.place)
                if unique != _NO_REQUEST:
                    self._requests[unique] = number
        return dict(sorted(found.items()))

    def directories(self) -> dict[int, tuple[int, dict[int, str]]]:
        """For each open directory, by number: its inode, and the names before the offsets from
        which it may be read.

        Raises:
            SurvivalError: the records make no sense.
        """
        found = {}
        with sensible():
            for record in self._of(_Kept.DIRECTORY):
                _, number, told = _opened(record)
                self._directories.found(number, record.place)
                places = [(int(offset), str(name)) for offset, name in told["places"]]
                self._passed[number] = (told["inode"], places)
                found[number] = (told["inode"], dict(places))
        return found

    def _of(self, kind: _Kept) -> Iterator[Record]:
        return (record for record in self._found if record.kind == kind)

    def known_before(self) -> set[int]:
        """The inodes that the kernel knew before :meth:`begin`.

        Raises:
            SurvivalError: the records make no sense.
        """
        with sensible():
            return {_INODE.unpack_from(record.content)[1] for record in self._of(_Kept.INODE)}

    @property
    def numbers(self) -> set[int]:
        """The inodes that the kernel knows."""
        return set(self._inodes)

    def forget_found(self) -> None:
        """All records are restored."""
        self._found = []


@contextmanager
def sensible() -> Iterator[None]:
    """Records are used in the block; contradictory ones are refused.

    Raises:
        SurvivalError: they contradict each other.
    """
    try:
        yield
    except (struct.error, LookupError, TypeError, ValueError, ArithmeticError) as exc:
        raise SurvivalError(f"what the daemon before has left makes no sense: {exc!r}") from None


def _told_of(number: int, told: object) -> bytes:
    return _OPEN.pack(_NO_REQUEST, number) + json.dumps(told).encode()


def _json(content: bytes) -> dict[str, Any]:
    told = json.loads(content)
    if not isinstance(told, dict):
        raise TypeError("no object")
    return told


def _opened(record: Record) -> tuple[int, int, dict[str, Any]]:
    unique, number = _OPEN.unpack_from(record.content)
    return unique, number, _json(record.content[_OPEN.size :])


def _negotiated(content: bytes) -> Negotiated:
    parts, start = [], _NEGOTIATED.size
    for length in _NEGOTIATED.unpack_from(content):
        parts.append(content[start : start + length])
        start += length
    return Negotiated(*parts)


def found_out_before(descriptor: int) -> FoundOut | None:
    """The facts of :attr:`Survival.found_out`, which do not change while a daemon serves.

    Raises:
        SurvivalError: the records cannot be used.
    """
    try:
        told = StateTable.first(descriptor, _Kept.FACTS)
    except LedgerError as exc:
        raise SurvivalError(f"the state of the daemon before {exc}") from None
    with sensible():
        return None if told is None else FoundOut(**_json(told)["found_out"])


def open_survival(descriptor: int) -> Survival:
    """The records behind a descriptor, which stays the caller's.

    Raises:
        SurvivalError: they cannot be used.
    """
    try:
        return Survival(StateTable(descriptor))
    except LedgerError as exc:
        raise SurvivalError(f"the state of the daemon before {exc}") from None
