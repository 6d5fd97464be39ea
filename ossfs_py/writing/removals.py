"""Records of removals that are not carried out at the store, and how to recognize the object."""

import json
import time
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from ossfs_py.errors import ObjectMissingError
from ossfs_py.model import ListQuery, ObjectInfo
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.kept import keep_copy
from ossfs_py.writing.segments import new_ident

_NS_PER_SECOND = 1_000_000_000
_AROUND_SECONDS = 900
"""Maximal distance between the time of an object and that of a removal whose upload may have made
it: the store's longest completion plus differences between clocks.
"""


@dataclass(frozen=True, slots=True)
class RemovalRecord:
    """A file that lost its name here, and the objects of it that may be under ``key``."""

    key: str
    etags: tuple[str, ...]
    """The known versions of the file there."""
    mtime_ns: int | None = None
    """The time when the removed version was stored, by the store's clock, if known: others may
    store the same bytes again, under the same ETag.
    """
    unheard_size: int | None = None
    """Size of the object that a running upload may make, or may have made."""
    markers: tuple[str, ...] = ()
    """Markers of directories that were removed after it, the deepest first: SeaweedFS keeps one
    while its directory has anything in it, and lists the empty directory until it is deleted."""
    whatever_was_there: bool = False
    """Whether every object counts that was stored before the removal: the file was closed, and the
    store shall delete the object of the key, as for a file that is deleted at once.
    """
    trash: str = ""
    """The prefix below which a copy is made before the object is deleted; "": no copy."""
    at_ns: int = field(default_factory=time.time_ns)
    ident: str = field(default_factory=new_ident)

    def is_of(self, info: ObjectInfo) -> bool:
        """Whether the object is the removed one, not one that others stored since."""
        if self.whatever_was_there:
            # Its own bytes may have a time from a clock that is ahead, others' bytes from one that
            # is behind.
            slack_ns = _AROUND_SECONDS * _NS_PER_SECOND if info.etag in self.etags else 0
            return info.mtime_ns <= self.at_ns + slack_ns
        if info.etag in self.etags:
            # HEAD gives whole seconds, LIST gives milliseconds.
            stored_ns = info.mtime_ns if self.mtime_ns is None else self.mtime_ns
            return stored_ns // _NS_PER_SECOND == info.mtime_ns // _NS_PER_SECOND
        near = abs(info.mtime_ns - self.at_ns) <= _AROUND_SECONDS * _NS_PER_SECOND
        return near and info.size == self.unheard_size

    def to_json(self) -> str:
        """The text kept on disk, by hand: rm -r writes one for each file, and the encoder takes
        four times as long.
        """
        etags = ", ".join([_quoted(etag) for etag in self.etags])
        markers = ", ".join([_quoted(marker) for marker in self.markers])
        mtime_ns = "null" if self.mtime_ns is None else self.mtime_ns
        unheard_size = "null" if self.unheard_size is None else self.unheard_size
        whatever = "true" if self.whatever_was_there else "false"
        return (
            f'{{"key": {_quoted(self.key)}, "etags": [{etags}], "mtime_ns": {mtime_ns},'
            f' "unheard_size": {unheard_size}, "markers": [{markers}],'
            f' "whatever_was_there": {whatever}, "trash": {_quoted(self.trash)},'
            f' "at_ns": {self.at_ns}, "ident": {_quoted(self.ident)}}}'
        )

    @classmethod
    def from_json(cls, text: str) -> "RemovalRecord":
        """Read a record back.

        Raises:
            ValueError, LookupError, TypeError: the text is no record.
        """
        fields: dict[str, Any] = json.loads(text)
        mtime_ns, size = fields["mtime_ns"], fields["unheard_size"]
        return cls(
            key=str(fields["key"]),
            etags=tuple(str(etag) for etag in fields["etags"]),
            mtime_ns=None if mtime_ns is None else int(mtime_ns),
            unheard_size=None if size is None else int(size),
            markers=tuple(str(marker) for marker in fields["markers"]),
            whatever_was_there=bool(fields.get("whatever_was_there", False)),
            trash=str(fields.get("trash", "")),
            at_ns=int(fields["at_ns"]),
            ident=str(fields["ident"]),
        )


def delete_removed(store: ObjectStore, record: RemovalRecord) -> bool:
    """Delete the object of a removal, unless others have stored another one; blocks.

    Returns whether there was one to delete. Deletes have no condition: an object that others store
    between the check and the deletion is deleted too.

    Raises:
        NameTooLongError, StoreError: it still exists, perhaps as it could not be copied.
    """
    try:
        info = store.head(record.key)
    except ObjectMissingError:
        is_there = False
    else:
        is_there = record.is_of(info)
        if is_there and record.trash:
            kept = keep_copy(store, record.trash, info, record.at_ns)
            is_there = kept is not None and record.is_of(kept)
    if is_there:
        store.delete(record.key)
    for marker in record.markers:
        if is_bare_marker(store, marker):
            store.delete(marker)
    return is_there


def is_bare_marker(store: ObjectStore, key: str) -> bool:
    """Whether a directory has at most its empty marker; blocks.

    Raises:
        StoreError
    """
    found = store.list_page(ListQuery(key, delimiter="", max_keys=2)).objects
    return all(info.key == key and not info.size for info in found)
