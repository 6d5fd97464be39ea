"""Inodes and the table that knows them by number and by name. No I/O."""

import enum
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from ossfs_py.errors import StaleInodeError
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.metadata import NOTHING, Decoded, decode
from ossfs_py.namespace.numbers import Hash, hash_of, hashes_of, seed_of

log = logging.getLogger(__name__)

ROOT_NUMBER = 1
"""FUSE_ROOT_ID of the kernel."""

_NS_PER_SECOND = 1_000_000_000
# How many idle inodes one new inode may look at to find one to drop: enough to get past a chain
# of directories, little enough to stay constant time.
_EVICTION_LOOKS = 16
_MAX_GENERATION = 2**31 - 1
"""The kernel keeps 32 bits and compares them as an int (fuse_stale_inode)."""
_GENERATION_STEP = 1 << 32
"""Further than numbers are ever stepped over."""


class Kind(enum.Enum):
    """The kind of an inode. It never changes: a new kind under a name is a new inode."""

    # Enum's own is written in Python, and asked several times a request.
    __hash__ = object.__hash__

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"


_NO_CHILDREN: dict[str, "Inode"] = {}
"""For everything except directories: an empty dict in each of a million files is 64 MB."""


class Inode:
    """One file, directory or symlink that this mount knows.

    ``info`` is what the store last said (of a directory: its marker), ``metadata`` the user
    metadata of that very version, None when nobody asked. The attribute fields are None until
    the mount itself sets them and then win over ``info`` and ``metadata`` until the store shows
    another version.
    """

    __slots__ = (
        "_decoded",
        "atime_ns",
        "children",
        "copied_from",
        "ctime_ns",
        "fresh_until",
        "generation",
        "gid",
        "info",
        "kind",
        "link_target",
        "local",
        "lookup_count",
        "lost_from",
        "marker_made",
        "metadata",
        "metadata_dirty",
        "mode",
        "moving",
        "moving",
        "mtime_explicit",
        "mtime_ns",
        "mtime_settled",
        "name",
        "number",
        "open_count",
        "parent",
        "removed",
        "seed",
        "settled",
        "shadows",
        "size_source",
        "size_told",
        "stale",
        "transient",
        "uid",
        "xattrs",
    )

    def __init__(  # noqa: PLR0915 (a line for each of its many attributes)
        self, number: int, parent: "Inode | None", name: str, kind: Kind
    ) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.kind = kind
        self.lookup_count = 0
        """References the kernel holds."""
        self.open_count = 0
        """Open handles; kept by the filesystem."""
        self.info: ObjectInfo | None = None
        self.copied_from: ObjectVersion | None = None
        """The version whose bytes ``info`` is a server-side copy of (its metadata changed)."""
        self.fresh_until = 0.0
        """The time on trio's clock until which nobody needs to ask the store."""
        self.metadata: Mapping[str, str] | None = None
        self.mode: int | None = None
        """Permission bits."""
        self.uid: int | None = None
        self.gid: int | None = None
        self.atime_ns: int | None = None
        self.mtime_ns: int | None = None
        self.ctime_ns: int | None = None
        self.xattrs: dict[str, bytes] | None = None
        self.mtime_explicit = False
        """mtime was set by a program and so is stored with the object."""
        self.mtime_settled = False
        """info.mtime_ns came from the store, not from this host's clock at an upload."""
        self.local = False
        """Created here and not in the store yet."""
        self.moving = False
        """A directory or file whose new name the store does not have yet."""
        self.removed = False
        """No name leads here any more."""
        self.stale = False
        """Removed, and not by this mount: others deleted or replaced what it stood for."""
        self.lost_from: Inode | None = None
        """The directory that others took its name in."""
        self.settled = False
        """Somebody who has it open was given bytes of its version, or pages of it are cached."""
        self.transient = False
        """Its number, or its being the file of that number, ends with this mount."""
        self.generation: int | None = None
        """Once the kernel was told, what of the key tells it from others of the same number."""
        self.seed: int | None = None
        """For a directory, once known: the seed for the numbers of its entries."""
        self.shadows = False
        """Local, but its key still holds an older object in the store."""
        self.size_source: Callable[[], int] | None = None
        """Set while an open file is the authority for the size."""
        self.size_told = 0
        """The size in bytes that the kernel may have. Kept by the filesystem."""
        self.metadata_dirty = False
        """Attributes changed that the next upload has to carry."""
        self.marker_made: ObjectVersion | None = None
        """For a directory: the marker that this mount wrote last. Its whole content is known here.
        """
        self.link_target: bytes | None = None
        self.children: dict[str, Inode] = {} if kind is Kind.DIRECTORY else _NO_CHILDREN
        """The known entries of a directory, by name."""
        self._decoded: tuple[Mapping[str, str], Decoded] | None = None

    def __repr__(self) -> str:
        return f"<Inode {self.number} {self.kind.value} {self.name!r}>"

    @property
    def is_plain(self) -> bool:
        """A stored file of which nothing is known but what LIST tells, and nothing changed."""
        return (
            not self.metadata
            and self.mode is None
            and self.mtime_ns is None
            and self.uid is None
            and self.gid is None
            and self.atime_ns is None
            and self.ctime_ns is None
            and self.size_source is None
            and self.kind is Kind.FILE
            and not self.removed
        )

    @property
    def decoded(self) -> Decoded:
        """The fields of the known metadata."""
        if self.metadata is None:
            return NOTHING
        if self._decoded is None or self._decoded[0] is not self.metadata:
            self._decoded = (self.metadata, decode(self.metadata))
        return self._decoded[1]

    @property
    def size(self) -> int:
        """Current size in bytes; of a symlink the length of its target."""
        if self.size_source is not None:
            return self.size_source()
        if self.kind is Kind.SYMLINK and (target := self.known_target) is not None:
            return len(target)
        if self.info is None or self.kind is Kind.DIRECTORY:
            return 0
        return self.info.size

    @property
    def known_target(self) -> bytes | None:
        """A symlink's target, if it can be told without asking the store."""
        return self.decoded.symlink_target or self.link_target

    def touch(self, now_ns: int) -> None:
        """The content changed just now."""
        self.mtime_ns = self.ctime_ns = now_ns
        self.mtime_explicit = False

    def learn(self, info: ObjectInfo) -> bool:
        """Take over what the store says; returns whether the content is another one.

        Attributes set here survive as long as the store still shows the version they belong to.
        LIST tells milliseconds and no metadata where HEAD tells seconds and metadata, so answers
        of both kinds are compared by whole seconds and completed from each other.
        """
        before = self.info
        same_content = before is not None and before.etag == info.etag and before.size == info.size
        same_version = same_content and self._same_metadata(info)
        if before is not None and same_version and self.mtime_settled and info.metadata is None:
            info = before  # a LIST answer tells nothing new; this is the common case
        elif before is not None and same_version:
            info = info._replace(
                mtime_ns=before.mtime_ns if self.mtime_settled else info.mtime_ns,
                metadata=self.metadata if info.metadata is None else info.metadata,
                content_type=info.content_type or before.content_type,
                storage_class=info.storage_class or before.storage_class,
                version_id=info.version_id or before.version_id,
                owner=info.owner or before.owner,
                described=before.described if info.described is None else info.described,
                tag_count=before.tag_count if info.described is None else info.tag_count,
            )
        elif not self.metadata_dirty:
            self.mode = self.uid = self.gid = None
            self.atime_ns = self.mtime_ns = self.ctime_ns = None
            self.xattrs = None
            self.mtime_explicit = False
        if not same_content:
            self.link_target = self.copied_from = None
        self.info = info
        self.metadata = info.metadata
        self.mtime_settled = True
        self.local = False
        return before is not None and not same_content

    def _same_metadata(self, info: ObjectInfo) -> bool:
        before = self.info
        if before is None:
            return False
        if info.metadata is not None and self.metadata is not None:
            return self.decoded == decode(info.metadata)
        # The same bytes written again keep their ETag but may bring other metadata.
        return (
            not self.mtime_settled
            or before.mtime_ns // _NS_PER_SECOND == info.mtime_ns // _NS_PER_SECOND
        )


class InodeWitness(Protocol):
    """Is notified of what the kernel will know, before the kernel is answered."""

    def told(self, inode: Inode) -> None:
        """The kernel gets references to an inode; its count has them already."""
        ...

    def forgot(self, inode: Inode) -> None:
        """The kernel dropped references to an inode; its count is without them already."""
        ...

    def moved(self, inode: Inode) -> None:
        """An inode has another name, or none any more, or is in the store now."""
        ...


class InodeTable:
    """Every inode the mount knows.

    Inodes that nobody references stay known, most recently used last, up to
    ``max_unreferenced``: a listing makes thousands that the kernel never asks for again.
    """

    def __init__(
        self, max_unreferenced: int, prefix: str = "", *, hash_name: Hash = hash_of
    ) -> None:
        """``prefix`` is what of the bucket is mounted; empty, or ends with a slash."""
        self.root = Inode(ROOT_NUMBER, None, "", Kind.DIRECTORY)
        self.root.seed = seed_of(prefix, hash_name)
        self._hash_name = hash_name
        self._by_number: dict[int, Inode] = {ROOT_NUMBER: self.root}
        self._idle: OrderedDict[int, Inode] = OrderedDict()
        self._max_unreferenced = max_unreferenced
        self.own_generation = 1 + secrets.randbelow(_MAX_GENERATION)
        """Inodes whose number is valid only in this mount."""
        self.witness: InodeWitness | None = None

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Inode:
        """The inode of that number.

        Raises:
            StaleInodeError: not known.
        """
        try:
            return self._by_number[number]
        except KeyError:
            raise StaleInodeError(f"inode {number} is not known") from None

    def is_told(self, inode: Inode) -> bool:
        """Whether the kernel knows the inode."""
        return inode.lookup_count > 0 or inode is self.root

    def find(self, number: int) -> Inode | None:
        """The inode of that number, if it is known."""
        return self._by_number.get(number)

    def child(self, parent: Inode, name: str) -> Inode | None:
        """The known entry of that name."""
        inode = parent.children.get(name)
        if inode is not None and inode.number in self._idle:
            self._idle.move_to_end(inode.number)
        return inode

    def generation(self, inode: Inode) -> int:
        """The generation, which tells the inode from others that have, or will have, its number.

        Another hash of the key, in every mount, where the number is the one of that key; else this
        mount's own.
        """
        if inode.transient:
            return self.own_generation
        if inode.generation is None:
            seed = self._seed(inode.parent) if inode.parent is not None else 0
            other = self._hash_name(seed, inode.name, _GENERATION_STEP)
            inode.generation = other % _MAX_GENERATION
        return inode.generation

    def new(self, parent: Inode, name: str, kind: Kind) -> Inode:
        """A new inode under a name that no known entry has."""
        seed = self._seed(parent)
        step = 0
        # The last bit is left out: SQL and many programs keep these numbers with a sign.
        while (number := self._hash_name(seed, name, step) >> 1) in self._by_number or not number:
            step += 1
        inode = Inode(number, parent, name, kind)
        inode.transient = step > 0
        self._by_number[number] = inode
        if parent.number not in self._by_number:
            self._restore(parent)
        parent.children[name] = inode
        if len(self._idle) >= self._max_unreferenced:
            self._shrink(room=1)  # before it could displace the new one
        self._idle[inode.number] = inode
        return inode

    def new_files(
        self, parent: Inode, files: Sequence[tuple[str, ObjectInfo]], fresh_until: float
    ) -> list[Inode]:
        """New inodes, as :meth:`new` makes them, for listed files whose names no known entry has.
        The kernel gets a reference to each.
        """
        if parent.number not in self._by_number:
            self._restore(parent)
        seed, names = self._seed(parent), [name for name, _info in files]
        by_number, children = self._by_number, parent.children
        hashes = hashes_of(seed, names, 0, self._hash_name)
        others = hashes_of(seed, names, _GENERATION_STEP, self._hash_name)
        made: list[Inode] = []
        for (name, info), whole, other in zip(files, hashes, others, strict=True):
            number = whole >> 1
            if number in by_number or not number:
                inode = self.new(parent, name, Kind.FILE)
                self._idle.pop(inode.number, None)
            else:
                inode = children[name] = by_number[number] = Inode(number, parent, name, Kind.FILE)
                inode.generation = other % _MAX_GENERATION
            inode.lookup_count = 1
            inode.info = info
            inode.mtime_settled = True
            inode.fresh_until = fresh_until
            made.append(inode)
        if self.witness is not None:
            for inode in made:
                self.witness.told(inode)
        return made

    def detach(self, inode: Inode) -> None:
        """Take the inode's name away; programs that have it open keep the inode."""
        inode.removed = True
        parent = inode.parent
        if parent is not None and parent.children.get(inode.name) is inode:
            del parent.children[inode.name]
        if self.witness is not None:
            self.witness.moved(inode)
        self._drop_if_unreferenced(inode)

    def move(self, inode: Inode, parent: Inode, name: str) -> None:
        """Give the inode another name; everything known below goes with it.

        Precondition: no known entry has the new name.
        """
        if inode.parent is not None:
            inode.parent.children.pop(inode.name, None)
        inode.parent = parent
        inode.name = name
        parent.children[name] = inode
        for node in self.below(inode):
            node.seed = None  # what comes below from now on has other keys
        if self.witness is not None:
            self.witness.moved(inode)

    def note_stored(self, inode: Inode) -> None:
        """An empty object stands for the inode, which was known here only."""
        if self.witness is not None:
            self.witness.moved(inode)

    def remember(self, inode: Inode, count: int = 1) -> None:
        """The kernel got ``count`` more references to the inode."""
        # One that was dropped before the kernel heard of it may have been made again since.
        known = self._by_number.get(inode.number)
        if known is not None:
            inode = known
        inode.lookup_count += count
        self._idle.pop(inode.number, None)
        if known is None:
            self._restore(inode)
        if self.witness is not None and inode is not self.root:
            self.witness.told(inode)

    def adopt(self, inode: Inode, count: int) -> None:
        """Know an inode of which the kernel was told ``count`` times by an earlier daemon.

        Its parent is known, and has no other entry of its name unless that is removed.
        """
        inode.lookup_count = count
        self._by_number[inode.number] = inode
        if inode.parent is not None and not inode.removed:
            inode.parent.children[inode.name] = inode

    def forget(self, number: int, count: int) -> bool:
        """The kernel dropped ``count`` references; whether it has none left. Never raises."""
        inode = self._by_number.get(number)
        if inode is None or inode is self.root:
            return inode is None
        if count > inode.lookup_count:
            log.warning("the kernel forgets %r more often than it was told of it", inode)
        inode.lookup_count = max(0, inode.lookup_count - count)
        if self.witness is not None:
            self.witness.forgot(inode)
        if inode.lookup_count == 0:
            self._idle[number] = inode
            if inode.removed:
                self._drop_if_unreferenced(inode)
            self._shrink()
        return inode.lookup_count == 0

    def below(self, inode: Inode) -> Iterator[Inode]:
        """The inode and every known one below it."""
        stack = [inode]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def _seed(self, directory: Inode) -> int:
        if directory.seed is not None:
            return directory.seed
        unknown: list[Inode] = []
        node = directory
        while node.seed is None:
            unknown.append(node)
            assert node.parent is not None  # noqa: S101 - the root has its seed from the beginning
            node = node.parent
        seed = node.seed
        for node in reversed(unknown):
            seed = node.seed = self._hash_name(seed, node.name, 0)
        return seed

    def _restore(self, inode: Inode) -> None:
        """Know an inode again that was dropped between its making and the kernel's hearing."""
        node: Inode | None = inode
        while node is not None and node.number not in self._by_number:
            self._by_number[node.number] = node
            if not node.lookup_count:
                self._idle[node.number] = node
            if node.parent is not None and not node.removed:
                node.parent.children.setdefault(node.name, node)
            node = node.parent

    def _shrink(self, room: int = 0) -> None:
        """Drop the longest unused inodes until ``room`` more fit."""
        looks = _EVICTION_LOOKS
        while self._idle and len(self._idle) + room > self._max_unreferenced and looks:
            looks -= 1
            number, inode = next(iter(self._idle.items()))
            self._idle.move_to_end(number)
            self._drop_if_unreferenced(inode)
            # A directory that has just lost its last known entry is as unused as that was.
            while number not in self._by_number and inode.parent is not None:
                inode = inode.parent
                number = inode.number
                if number in self._idle and len(self._idle) + room > self._max_unreferenced:
                    self._drop_if_unreferenced(inode)

    def _drop_if_unreferenced(self, inode: Inode) -> None:
        if inode.lookup_count or inode.open_count or inode.children or inode is self.root:
            return
        if (inode.local or inode.moving or inode.metadata_dirty) and not inode.removed:
            return  # the only place that knows of it
        self._idle.pop(inode.number, None)
        self._by_number.pop(inode.number, None)
        if inode.parent is not None and inode.parent.children.get(inode.name) is inode:
            del inode.parent.children[inode.name]
