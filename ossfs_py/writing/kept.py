"""Kept copies: names of the copies that a mount with a trash makes of lost objects.

``TRASH/2026-11-30/models/config.json~101530250-18c3f0a2b1d2e400-5f0c9a1e`` consists of the day of
the removal, the whole key, the time of day (UTC, milliseconds), the time when the object was stored
(nanoseconds since the epoch, in hexadecimal), and eight digits that make the name unique. A kept
copy is a plain object with all metadata of the original.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ossfs_py.errors import (
    NameTooLongError,
    ObjectMissingError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import ObjectInfo
from ossfs_py.store.base import ObjectStore

_TAG = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)/(?P<key>.+)~(?P<time>\d{9})-(?P<mtime>[0-9a-f]+)-(?P<ident>[0-9a-f]{8})",
    re.DOTALL,
)
_NS_PER_MS = 10**6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_KEY_BYTES = 1024
"""Longest key of S3 and OSS, in bytes of UTF-8."""
_NAME_BYTES = len("2026-11-30/~101530250-18c3f0a2b1d2e400-5f0c9a1e")
_TRIES = 3


@dataclass(frozen=True, slots=True)
class KeptCopy:
    """The information in the name of a kept copy."""

    key: str
    """Key of the object that was deleted or overwritten."""
    removed_ns: int
    """Time of the removal, by the clock of the machine that made it."""
    mtime_ns: int
    """When the object had been stored, by the store's clock."""
    ident: str


def require_room(trash: str, key: str) -> None:
    """Raises NameTooLongError if the name of a copy of the key would exceed the store's limit."""
    if len((trash + key).encode("utf-8", "surrogatepass")) + _NAME_BYTES > _MAX_KEY_BYTES:
        raise NameTooLongError(f"the key {key[:64]!r}… is too long to be kept in the trash")


def kept_key(trash: str, info: ObjectInfo, removed_ns: int) -> str:
    """A new name for a kept copy of an object below ``trash``, a prefix.

    Raises:
        NameTooLongError
    """
    require_room(trash, info.key)
    moment = _EPOCH + timedelta(milliseconds=removed_ns // _NS_PER_MS)
    day, clock = moment.strftime("%Y-%m-%d"), moment.strftime("%H%M%S%f")[:9]
    return f"{trash}{day}/{info.key}~{clock}-{info.mtime_ns:x}-{secrets.token_hex(4)}"


def parse_kept(trash: str, key: str) -> KeptCopy | None:
    """Parse a key below ``trash``; None if it does not name a kept copy."""
    found = _TAG.fullmatch(key[len(trash) :])
    if found is None:
        return None
    try:
        moment = datetime.strptime(f"{found['day']}{found['time']}000Z", "%Y-%m-%d%H%M%S%f%z")
    except ValueError:
        return None
    removed_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    return KeptCopy(found["key"], removed_ms * _NS_PER_MS, int(found["mtime"], 16), found["ident"])


def keep_copy(
    store: ObjectStore, trash: str, info: ObjectInfo, removed_ns: int
) -> ObjectInfo | None:
    """Let the store copy an object below ``trash``; blocks until the copy is there.

    Returns the copied object, which may be a version that arrived in the meantime; None if the
    object is gone.

    Raises:
        NameTooLongError
        StoreError: there is no copy.
    """
    for _ in range(_TRIES):
        try:
            store.copy(info.version, kept_key(trash, info, removed_ns), like=info)
        except (VersionChangedError, ObjectMissingError):
            try:
                info = store.head(info.key)
            except ObjectMissingError:
                return None
        else:
            return info
    raise StoreUnavailableError(
        "the object changes again and again", operation="CopyObject", key=info.key
    )
