"""The records of open files, which outlive the daemon of a mount for writing.

Each open inode with a descriptor has a record of the state on which its next commit depends. Each
descriptor has a record too. The records have no bytes of files: dirty bytes are in a staging file,
and its record in the journal names the owner. Records are written before the kernel is answered. If
no request belongs to a descriptor, nobody was ever told of it.
"""

import base64
import json
import struct
from collections.abc import Callable, Container, Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from ossfs_py.filesystem.handle import Handle
from ossfs_py.filesystem.openinode import HiddenCopy, OpenInode
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.runtime.ledger import NumberedRecords, Record, StateTable
from ossfs_py.writing.records import DirtyRecord

_HEAD = struct.Struct("=QQQ")
"""An open inode has its time of change in ns here. A descriptor has the request that it was made
for (0: none yet). Both are overwritten in place. Then follow the number, a counter of the times
that the record was written anew, and JSON.
"""
_NO_REQUEST = 0


class FileKind(IntEnum):
    """The kinds of these records in the ledger."""

    OPENED = 10
    DESCRIPTOR = 11


class Descriptor(NamedTuple):
    """The record of a descriptor of an earlier daemon."""

    opened: int
    """Number of its open inode."""
    flags: int
    uid: int
    writer: int | None
    makes: bool
    past_pages: bool


class LeftOpen(NamedTuple):
    """The open files of an earlier daemon."""

    opened: dict[int, Mapping[str, Any]]
    """Open inodes that have a descriptor, by number."""
    descriptors: dict[int, Descriptor]
    closed: dict[int, Mapping[str, Any]]
    """Dirty open inodes without a descriptor, by number: somebody may still want their bytes."""


class FileRecords:
    """The records of open files of one mount. Belongs to the trio thread.

    Implements :class:`~ossfs_py.filesystem.openinode.OpenWitness` and
    :class:`~ossfs_py.filesystem.handles.HandleWitness`.
    """

    def __init__(
        self, ledger: StateTable, found: Iterable[Record], stored: Callable[[Inode], None]
    ) -> None:
        """``found`` are the records of an earlier daemon; ``stored`` is told of inodes that have an
        object now.
        """
        self._ledger = ledger
        self._stored = stored
        self.ident = ""
        """Identity of the ledger: the names of this mount's owners begin with it."""
        self._opened = NumberedRecords(ledger, FileKind.OPENED)
        self._told: dict[int, tuple[object, ...]] = {}
        self._descriptors = NumberedRecords(ledger, FileKind.DESCRIPTOR)
        self._requests: dict[int, int] = {}
        self._last = self._turn = 0
        self._records = [record for record in found if record.kind in tuple(FileKind)]

    # -- records written as things happen -------------------------------------------------------

    def named(self, opened: OpenInode) -> str:  # noqa: ARG002 - the protocol's
        """See the protocol."""
        self._last += 1
        return self.name_of(self._last)

    def name_of(self, number: int) -> str:
        """The name of the open inode with that number."""
        return f"{self.ident}:{number}"

    def changed(self, opened: OpenInode) -> None:
        """See the protocol."""
        number = _number(opened)
        told = _state(opened)
        is_same = self._told.get(number) == told
        if is_same and self._opened.set_number(number, opened.inode.mtime_ns or 0):
            return
        self._told[number] = told
        self._write(number, opened.inode, _described(opened))

    def sending(self, opened: OpenInode) -> None:
        """See the protocol. A file without a record belongs to a call that the kernel repeats as a
        whole.
        """
        if _number(opened) in self._opened:
            self.changed(opened)

    def made(self, opened: OpenInode, version: ObjectVersion) -> None:
        """See the protocol."""
        told = _described(opened)
        told |= {"version": _listed(version), "seen": _listed(version)}
        told |= dict.fromkeys(_NOT_WHEN_STORED, False)
        told |= {"appended_from": None, "over": None}
        if opened.composes:
            # Bytes of others came before our end. The kernel knows our end at another offset.
            told |= {"kernel_end": opened.file.size, "superseded": opened.inode.settled}
        number = _number(opened)
        self._told.pop(number, None)
        self._write(number, opened.inode, told)
        self._stored(opened.inode)

    def closed(self, opened: OpenInode) -> None:
        """See the protocol."""
        number = _number(opened)
        self._told.pop(number, None)
        self._opened.drop(number)

    def opened(self, number: int, handle: Handle) -> None:
        """A descriptor is new, or its file is of another version now."""
        handle.opened.note()
        if number in self._descriptors:
            return
        told = Descriptor(
            _number(handle.opened),
            handle.flags,
            handle.uid,
            handle.writer,
            handle.makes,
            handle.past_pages,
        )
        content = _HEAD.pack(_NO_REQUEST, number, 0) + json.dumps(told).encode()
        self._descriptors.write(number, content)

    def released(self, number: int) -> None:
        """A descriptor was released."""
        self._descriptors.drop(number)

    def asked_by(self, number: int, unique: int) -> bool:
        """Record the kernel request that a descriptor was made for; False if it has no record."""
        return self._descriptors.set_number(number, unique)

    def opened_for(self, unique: int) -> int | None:
        """The descriptor that an earlier daemon made for a request, and may not have reported.
        Returns it only once.
        """
        return self._requests.pop(unique, None)

    def dirty_owners(self, found: LeftOpen) -> set[str]:
        """The owners of files that an earlier daemon had open, whose dirty bytes are in a staging
        file and in no object.
        """
        return {
            self.name_of(number)
            for number, told in {**found.closed, **found.opened}.items()
            if told["unstored"] and not told["fleeting"]
        }

    def goes_on(self, found: LeftOpen, record: DirtyRecord, known: Container[int]) -> bool:
        """Whether the dirty file of such an owner continues here: a program has it open, or
        write-back has it queued, as ``record`` says, for an inode in ``known``, which the kernel
        knows. Any other file has no place in the tree, and is stored from the journal.
        """
        number = int(record.owner.rpartition(":")[2])
        told = found.closed.get(number)
        return told is None or (record.complete and told["inode"] in known)

    def forget(self, number: int) -> None:
        """A closed file does not continue here."""
        self._opened.drop(number)

    def drops(self, found: LeftOpen, owner: str) -> bool:
        """Whether nobody wants the dirty bytes that an earlier daemon had for an owner: they are in
        the store, or the kernel repeats the unanswered call that wrote them.
        """
        ident, _, number = owner.partition(":")
        return ident == self.ident and (number.endswith("+") or int(number) not in found.closed)

    # -- use by the next daemon
    # ---------------------------------------------------------------------

    def take_in(self) -> LeftOpen:
        """Read the records of an earlier daemon, and drop those that nobody was told of.

        Raises:
            struct.error, LookupError, TypeError, ValueError: the records make no sense.
        """
        opened: dict[int, Mapping[str, Any]] = {}
        descriptors: dict[int, Descriptor] = {}
        halves: set[int] = set()
        for record, head in sorted(
            ((record, _HEAD.unpack_from(record.content)) for record in self._records),
            key=lambda pair: pair[1][2],
        ):
            first, number, turn = head
            told = json.loads(record.content[_HEAD.size :])
            self._turn = max(self._turn, turn)
            if record.kind == FileKind.OPENED:
                self._opened.found(number, record.place)
                opened[number] = {**told, "mtime_ns": first or None}
                self._last = max(self._last, number)
            elif first == _NO_REQUEST:
                halves.add(int(told[0]))
                self._ledger.drop(record.place)
            else:
                descriptors[number] = Descriptor(*told)
                self._descriptors.found(number, record.place)
                self._requests[first] = number
        used = {each.opened for each in descriptors.values()}
        for number in list(descriptors):
            if descriptors[number].opened not in opened:
                self._descriptors.drop(number)
                del descriptors[number]
        closed = {
            number: opened[number]
            for number in sorted(set(opened) - used - halves)
            if opened[number]["dirty"]
        }
        for number in set(opened) - used - set(closed):
            self._opened.drop(number)
        self._records = []
        return LeftOpen({n: opened[n] for n in sorted(used & set(opened))}, descriptors, closed)

    # -- inside -----------------------------------------------------------------------------------

    def _write(self, number: int, inode: Inode, told: Mapping[str, Any]) -> None:
        self._turn += 1
        content = _HEAD.pack(inode.mtime_ns or 0, number, self._turn)
        content += json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._opened.write(number, content)


def _number(opened: OpenInode) -> int:
    return int(opened.name.rpartition(":")[2])


_NOT_WHEN_STORED = (
    *("dirty", "unstored", "fleeting", "vanished", "exclusive", "unseen", "whole", "local"),
    *("shadows", "sending"),
)
_OF_OPENED = (
    *("exclusive", "made_here", "may_be_link", "whole", "unseen", "has_pages", "superseded"),
    *("appended_from", "kernel_end", "writer", "rewrites", "sending"),
)
_OF_INODE = (
    *("local", "shadows", "mode", "uid", "gid", "atime_ns", "ctime_ns", "mtime_explicit"),
    "metadata_dirty",
)


def _state(opened: OpenInode) -> tuple[object, ...]:
    """The recorded state, for comparison: its objects are replaced when they change."""
    inode, file = opened.inode, opened.file
    return (
        *(getattr(opened, name) for name in _OF_OPENED),
        *(getattr(inode, name) for name in _OF_INODE if name != "ctime_ns"),
        *(
            file.version,
            file.dirty,
            file.unstored,
            file.fleeting and file.size,
            file.vanished,
            opened.seen,
            opened.spared,
            opened.hidden,
            opened.interrupted,
            opened.over,
        ),
        *(inode.info, inode.metadata, inode.number, inode.mtime_ns is None),
        None if inode.xattrs is None else tuple(inode.xattrs.items()),
    )


def _described(opened: OpenInode) -> dict[str, Any]:
    inode, file, hidden = opened.inode, opened.file, opened.hidden
    return {
        **{name: getattr(opened, name) for name in _OF_OPENED},
        **{name: getattr(inode, name) for name in _OF_INODE},
        "inode": inode.number,
        "version": _listed(file.version),
        "dirty": file.dirty,
        "unstored": file.unstored,
        "fleeting": file.fleeting,
        "vanished": file.vanished,
        "size": file.size,
        "seen": _listed(opened.seen),
        "spared": _listed(opened.spared),
        "hidden": hidden and [_listed(hidden.version), _listed(hidden.source)],
        "interrupted": opened.interrupted,
        "over": _listed(opened.over),
        "info": inode.info and _plain(inode.info),
        "metadata": None if inode.metadata is None else dict(inode.metadata),
        "xattrs": inode.xattrs
        and {name: base64.b64encode(value).decode() for name, value in inode.xattrs.items()},
    }


def _plain(info: ObjectInfo) -> dict[str, Any]:
    told = info._asdict().items()
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in told}


def _listed(version: ObjectVersion | None) -> list[Any] | None:
    if version is None:
        return None
    return [version.key, version.etag, version.size, version.version_id]


def version_of(told: list[Any] | None) -> ObjectVersion | None:
    """Decode a version from a record."""
    return None if told is None else ObjectVersion(*told)


def restore_inode(inode: Inode, told: Mapping[str, Any]) -> None:
    """Restore an inode from its record."""
    for name in _OF_INODE:
        setattr(inode, name, told[name])
    inode.mtime_ns = told["mtime_ns"]
    version = version_of(told["version"])
    inode.info = told["info"] and ObjectInfo(**told["info"])
    if version is not None and not (told["unstored"] or told["hidden"]):
        # The daemon may have died after it stored the object and before it noted that.
        before = inode.info or ObjectInfo(version.key, version.size, version.etag, 0)
        if before.key == version.key:
            inode.info = before._replace(etag=version.etag, size=version.size)
    inode.metadata = told["metadata"]
    if told["xattrs"] is not None:
        values = told["xattrs"].items()
        inode.xattrs = {name: base64.b64decode(value) for name, value in values}


def restore_opened(
    told: Mapping[str, Any], make: Callable[[ObjectVersion | None], OpenInode]
) -> OpenInode:
    """Restore an open inode from its record; ``make`` makes one of a version."""
    opened = make(version_of(told["version"]))
    for name in _OF_OPENED:
        setattr(opened, name, told[name])
    opened.seen, opened.over = version_of(told["seen"]), version_of(told["over"])
    opened.spared = version_of(told["spared"])
    if told["interrupted"] is not None:
        offset, size, place = told["interrupted"]
        opened.interrupted = (offset, size, place)
    if told["hidden"] is not None:
        copy, source = map(version_of, told["hidden"])
        if copy is not None and source is not None:
            opened.hidden = HiddenCopy(copy, source)
    return opened
