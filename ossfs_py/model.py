"""Small frozen types that all layers use.

Sizes and offsets are bytes, times are nanoseconds since the epoch unless a name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

_DATED = "modified "
"""No ETag begins so: RFC 9110 has no place for a space in one."""
_DATED_LENGTH = len(_DATED)
_NO_ETAG = ("", _DATED)
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
    """In a versioned bucket: the version to read, even if the key has a newer one. None: the
    current version. The id does not count in comparisons, so caches share equal bytes."""

    @property
    def has_etag(self) -> bool:
        """Whether the store tells an ETag of it. Otherwise its time stands for one (see
        :func:`dated`): nothing is pinned to that, and no bytes are kept by it.
        """
        # As is_etag() does it: that would be another call, and every open asks eight times.
        return self.etag[:_DATED_LENGTH] not in _NO_ETAG


def is_etag(text: str) -> bool:
    """Whether it is an ETag, and nothing that stands for one."""
    return text[:_DATED_LENGTH] not in _NO_ETAG


def dated(mtime_ns: int) -> str:
    """The stand-in for the ETag of an object for which the store gives none: two versions of it are
    told apart by their times, to a second, which is all that a HEAD tells.
    """
    return f"{_DATED}{mtime_ns // 10**9}"


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The half-open span ``[start, end)`` of an object, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes in the span."""
        return self.end - self.start


class ObjectInfo(NamedTuple):
    """The description of one object from the store.

    A LIST answer leaves ``metadata`` None ("not asked"); a HEAD answer fills it, possibly empty.
    Metadata names are lower case and carry no ``x-amz-meta-`` prefix. It is a tuple for the same
    reason as :class:`Attributes`.
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
    """Headers that an object in this one's place must get again, by their lower-case names:
    Cache-Control and the like, storage class, encryption, website redirect. None while the object
    is known only from a LIST."""
    tag_count: int = 0
    """The number of tags, if a HEAD returned it. The tags themselves take a request."""
    retention: str | None = None
    """The object lock of this version: until when, or why, it cannot be removed."""
    pinned: bool = False
    """Use ``version_id``, whatever the current version of the key is."""
    stored_at: str | None = None
    """The key under which the store has it, while a renamed directory is copied; None: ``key``."""

    @property
    def version(self) -> ObjectVersion:
        """The version that this answer describes."""
        return ObjectVersion(
            self.stored_at or self.key,
            self.etag,
            self.size,
            self.version_id if self.pinned else None,
        )


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which page of which listing."""

    prefix: str
    delimiter: str = "/"
    """Keys are grouped into common prefixes at its first appearance; "" lists all keys."""
    token: str | None = None
    """``next_token`` of the previous page; takes precedence over ``start_after``."""
    start_after: str | None = None
    """Begin after this key."""
    max_keys: int = 1000
    """Most objects and common prefixes of one page; stores give no more than 1,000."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a LIST: objects and common prefixes, each in key order as the store sent them."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    next_token: str | None
    """The token of the next :class:`ListQuery`; None on the last page."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An event of a key in a versioned bucket: it was written, or deleted."""

    key: str
    version_id: str
    """``null`` for objects that were written while the bucket kept no versions."""
    is_latest: bool
    mtime_ns: int
    """By the store's clock; most stores give whole seconds."""
    info: ObjectInfo | None
    """The version that was written, pinned; None: the key was deleted (a delete marker)."""


@dataclass(frozen=True, slots=True)
class HistoryMark:
    """A place in a listing of versions: after one version, or after all versions of a key
    (None)."""

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
    """The ``after`` of the next query; None on the last page."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """``size`` bytes at ``offset`` of an open file descriptor: an upload body that needs no copy.

    The caller keeps the descriptor open and the bytes unchanged until the call returns.
    """

    fd: int
    offset: int
    size: int
    crc32c: int | None = None
    """The CRC-32C of the bytes as they were written, if it is known: they need not be read for
    it.
    """


@dataclass(frozen=True, slots=True)
class Pieces:
    """Bytes in several places of memory, one after the other: an upload body that needs no copy.

    The caller keeps them in place and unchanged until the call returns.
    """

    views: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        """Number of bytes in all of them."""
        return sum(map(len, self.views))


Body: TypeAlias = bytes | memoryview | Pieces | FileSlice
"""The body of an upload; its size in bytes is len() or ``size``."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When a write may happen: never over an existing key, or only over one known ETag."""

    only_if_absent: bool = False
    only_if_etag: str | None = None
    repeated: bool = False
    """The same write was sent before and got no answer. It may have succeeded, and may be the
    reason why the repetition is refused."""

    @property
    def limits(self) -> bool:
        """Whether it forbids anything."""
        return self.only_if_absent or self.only_if_etag is not None


ALWAYS = Condition()
IF_ABSENT = Condition(only_if_absent=True)


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An upload in progress at the store."""

    key: str
    upload_id: str
    tags: str = ""
    """The tags that it was started with, in the format of the header ``x-amz-tagging``."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part the store has accepted."""

    number: int
    etag: str
    size: int
    checksum: str | None = None
    """CRC-32C in base64, if the store keeps one. The completion must send it again."""


class Attributes(NamedTuple):
    """The attributes of one inode for stat(2). ``mode`` includes the file type bits.

    A tuple, because one is created for each entry of a listing: a frozen dataclass takes three
    times as long.
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


class AttributeChange(NamedTuple):
    """The changes of a setattr(2)-like call; None leaves a field unchanged.

    ``mode`` has only permission bits. The size is not included: the open file is truncated. It is a
    tuple for the same reason as ``Attributes``.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


NO_CHANGE = AttributeChange()


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """How bytes become an object: under which key, described how, on what condition."""

    key: str
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    content_type: str | None = None
    condition: Condition = ALWAYS
    like: ObjectInfo | None = field(default=None, compare=False)
    """The object that is replaced. Its description, except metadata and type, is kept. It does not
    count in comparisons of two requests."""
    replaces: ObjectVersion | None = field(default=None, compare=False)
    """The version that the writer knows and wants to replace. It is set even without a condition,
    because a journal outlives the knowledge of the mount."""
