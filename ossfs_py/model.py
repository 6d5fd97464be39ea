"""Small frozen types that every layer speaks.

Sizes and offsets are bytes, times are nanoseconds since the epoch unless a name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

NO_METADATA: Mapping[str, str] = MappingProxyType({})

MARKER_CONTENT_TYPE = "application/x-directory"
"""Content type of the markers that s3fs and ossfs write."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One immutable content of a key. Two versions of a key never share an ETag.

    ``etag`` is opaque and kept without its surrounding quotes.
    """

    key: str
    etag: str
    size: int
    version_id: str | None = field(default=None, compare=False)
    """Of a versioned bucket: the one to read although others may have come since; None: what the
    key holds now. Equal bytes are equal whatever their id, in caches too."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The half-open span ``[start, end)`` of an object, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes in the span."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store says about one object.

    A LIST answer leaves ``metadata`` None ("not asked"); a HEAD answer fills it, possibly empty.
    Metadata names are lower case and carry no ``x-amz-meta-`` prefix.
    """

    key: str
    size: int
    etag: str
    mtime_ns: int
    metadata: Mapping[str, str] | None = None
    content_type: str | None = None
    storage_class: str | None = None
    version_id: str | None = None
    owner: str | None = None
    described: Mapping[str, str] | None = None
    """What has to be said again of an object that takes this one's place, by the lower-case name
    of its header: Cache-Control and its like, storage class, encryption, a website's redirect.
    None as long as only a LIST has told of it."""
    tag_count: int = 0
    """How many tags it has, as far as a HEAD told; what they are has to be asked."""
    retention: str | None = None
    """What the store says of an object lock: until when, or why, this version cannot be removed."""
    pinned: bool = False
    """``version_id`` is meant, whatever the key holds now."""

    @property
    def version(self) -> ObjectVersion:
        """The content this answer speaks of."""
        return ObjectVersion(
            self.key, self.etag, self.size, self.version_id if self.pinned else None
        )


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which page of which listing."""

    prefix: str
    delimiter: str = "/"
    """Keys are folded into common prefixes at its first appearance; "" lists flat."""
    token: str | None = None
    """``next_token`` of the page before; goes before ``start_after``."""
    start_after: str | None = None
    """Begin behind this key."""
    max_keys: int = 1000
    """Most objects and common prefixes of one page; stores give no more than 1,000."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a LIST: objects and common prefixes, each in key order as the store sent them."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    next_token: str | None
    """Goes into the next :class:`ListQuery`; None on the last page."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a key of a versioned bucket: it was written, or deleted."""

    key: str
    version_id: str
    """``null`` for what was written while the bucket kept no versions."""
    is_latest: bool
    mtime_ns: int
    """By the store's clock; most stores tell whole seconds."""
    info: ObjectInfo | None
    """The version that was written, pinned; None: the key was deleted (a delete marker)."""


@dataclass(frozen=True, slots=True)
class HistoryMark:
    """A place in a listing of versions: behind one version, or behind all of a key's (None)."""

    key: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which page of which listing of versions."""

    prefix: str
    delimiter: str = ""
    after: HistoryMark | None = None
    max_entries: int = 1000
    sample: bool = False
    """One request, also where a store's pages lose names: enough for who looks for any version."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page: entries in the order of their keys, and of a key the newest first."""

    entries: tuple[HistoryEntry, ...]
    prefixes: tuple[str, ...]
    following: HistoryMark | None
    """Goes into the next query; None on the last page."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """``size`` bytes at ``offset`` of an open file descriptor: an upload body that needs no copy.

    The caller keeps the descriptor open and the bytes unchanged until the call returns.
    """

    fd: int
    offset: int
    size: int


Body: TypeAlias = bytes | memoryview | FileSlice
"""What an upload may send; len() or ``size`` gives its bytes."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When a write may happen: never over an existing key, or only over one known ETag."""

    only_if_absent: bool = False
    only_if_etag: str | None = None
    repeated: bool = False
    """The same write was given up before without an answer: it may have been carried out, and be
    what it is refused for now."""

    @property
    def limits(self) -> bool:
        """Whether it forbids anything."""
        return self.only_if_absent or self.only_if_etag is not None


ALWAYS = Condition()


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An upload in progress at the store."""

    key: str
    upload_id: str
    tags: str = ""
    """What it was begun with, as the header ``x-amz-tagging`` says it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part the store has accepted."""

    number: int
    etag: str
    size: int
    checksum: str | None = None
    """CRC-32C in base64 where the store keeps one; it wants to hear it again at the end."""


class Attributes(NamedTuple):
    """What stat(2) tells of one inode. ``mode`` includes the file type bits.

    A tuple, as one is made for each entry of a listing: a frozen dataclass takes three times as
    long.
    """

    ino: int
    mode: int
    size: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    nlink: int = 1


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """What a setattr(2)-like call changes; None leaves a field alone.

    ``mode`` holds permission bits only. Size is no part of it: truncation goes to the open file.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """How bytes become an object: under which key, described how, on what condition."""

    key: str
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    content_type: str | None = None
    condition: Condition = ALWAYS
    like: ObjectInfo | None = field(default=None, compare=False)
    """The object whose place it takes: what describes that one beside metadata and type is kept.
    No part of what makes two requests the same: it is no wish of the writer's."""
    replaces: ObjectVersion | None = field(default=None, compare=False)
    """What the writer knows the key to hold, and means to replace; also where the condition is
    silent, as a journal outlives what the mount knows."""
