"""The user metadata that s3fs, ossfs and rclone write: reading and writing it. Pure.

Names come without their ``x-amz-meta-`` prefix. Reading is tolerant: what another tool wrote
wrongly is ignored, never an error. The formats are those of s3fs and ossfs: decimal ``mode`` with
type bits, decimal ``uid`` and ``gid``, times in seconds with an optional fraction, ``xattr`` as
URL-encoded JSON of base64 values, and ossfs's ``symlink-target``.
"""

import base64
import binascii
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from urllib.parse import quote, unquote, unquote_to_bytes

from ossfs_py.errors import RangeTooLargeError

MAX_METADATA_BYTES = 2048
"""Most user metadata of one object, names and values together (S3 limit)."""

_LONGEST_CHARACTER_BYTES = 4
_NS_PER_SECOND = 1_000_000_000
_MAX_ID = 2**32 - 2  # the last uid_t; the one after it means "no change" to chown(2)
_MAX_TIME_DIGITS = 11  # seconds until the year 5138; longer numbers are not times
_OWN_NAMES = frozenset({"mode", "uid", "gid", "mtime", "atime", "ctime", "xattr", "symlink-target"})
_PLAIN_TIME = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,9})?", re.ASCII)
_NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Decoded:
    """The attributes in an object's metadata; None for those that are missing or invalid."""

    mode: int | None = None
    """st_mode with type bits."""
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    ctime_ns: int | None = None
    symlink_target: bytes | None = None
    """The target of a symlink that keeps it in its metadata."""
    link_in_body: bool = False
    """A symlink whose content is its target."""
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: _NO_XATTRS)

    @property
    def is_symlink(self) -> bool:
        """Whether the object stands for a symbolic link."""
        return self.symlink_target is not None or self.link_in_body


NOTHING = Decoded()


def decode(metadata: Mapping[str, str]) -> Decoded:
    """The fields of ``metadata``, whatever the case of their names."""
    if not metadata:
        return NOTHING
    own = {name.lower(): value for name, value in metadata.items()}
    mode = _number(own.get("mode"), 0o177777)
    target, in_body = _symlink(own.get("symlink-target"))
    if target is None and mode is not None and stat.S_ISLNK(mode):
        in_body = True
    return Decoded(
        mode=mode,
        uid=_number(own.get("uid"), _MAX_ID),
        gid=_number(own.get("gid"), _MAX_ID),
        mtime_ns=_time(own.get("mtime")),
        atime_ns=_time(own.get("atime")),
        ctime_ns=_time(own.get("ctime")),
        symlink_target=target,
        link_in_body=in_body,
        xattrs=_xattrs(own.get("xattr")),
    )


def encode(
    *,
    mode: int,
    uid: int,
    gid: int,
    foreign: Mapping[str, str] | None = None,
    mtime_ns: int | None = None,
    atime_ns: int | None = None,
    ctime_ns: int | None = None,
    symlink_target: bytes | None = None,
    link_in_body: bool = False,
    xattrs: Mapping[str, bytes] = _NO_XATTRS,
) -> dict[str, str]:
    """The metadata to store: what this mount knows, and of ``foreign`` what other tools wrote.

    ``mode`` carries the type bits. A field that is None is left out.

    Raises:
        RangeTooLargeError: more than a store keeps (2 KiB).
    """
    result = {}
    if foreign:
        result = {name: value for name, value in foreign.items() if name.lower() not in _OWN_NAMES}
    result["mode"], result["uid"], result["gid"] = str(mode), str(uid), str(gid)
    if mtime_ns is not None:
        result["mtime"] = format_time(mtime_ns)
    if atime_ns is not None:
        result["atime"] = format_time(atime_ns)
    if ctime_ns is not None:
        result["ctime"] = format_time(ctime_ns)
    if symlink_target is not None:
        result["symlink-target"] = f"header:{len(symlink_target)}:{quote(symlink_target)}"
    elif link_in_body and foreign:
        kept = {name.lower(): value for name, value in foreign.items()}.get("symlink-target")
        if kept is not None:
            result["symlink-target"] = kept
    if xattrs:
        values = {name: base64.b64encode(value).decode("ascii") for name, value in xattrs.items()}
        result["xattr"] = quote(json.dumps(values, separators=(",", ":")), safe="")
    _require_room("".join((*result, *result.values())))
    return result


def _require_room(text: str) -> None:
    """Names and values together must not be too long."""
    if len(text) <= MAX_METADATA_BYTES // _LONGEST_CHARACTER_BYTES:
        return
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > MAX_METADATA_BYTES:
        raise RangeTooLargeError(
            f"{size} bytes of metadata; a store keeps {MAX_METADATA_BYTES} with an object"
        )


def _number(text: str | None, largest: int) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(largest)):
        return None
    value = int(text)
    return value if value <= largest else None


def _time(text: str | None) -> int | None:
    """Nanoseconds since the epoch; decimal arithmetic keeps the fraction exact."""
    if text is None or len(text) > 64:
        return None
    whole, _, fraction = text.partition(".")
    if _PLAIN_TIME.fullmatch(text):  # as all clients store it
        return int(whole) * _NS_PER_SECOND + int(f"{fraction:0<9}")
    try:
        seconds = Decimal(text.strip())
    except InvalidOperation:
        return None
    if not seconds.is_finite() or (seconds and seconds.adjusted() >= _MAX_TIME_DIGITS):
        return None
    return int(seconds * _NS_PER_SECOND)


def format_time(value_ns: int) -> str:
    """A time as it is stored: seconds, with nine decimals where it has a fraction."""
    seconds, fraction = divmod(abs(value_ns), _NS_PER_SECOND)
    sign = "-" if value_ns < 0 else ""
    return f"{sign}{seconds}.{fraction:09d}" if fraction else f"{sign}{seconds}"


def _symlink(text: str | None) -> tuple[bytes | None, bool]:
    if text is None:
        return None, False
    where, _, rest = text.partition(":")
    if where == "body":
        return None, True
    _length, colon, encoded = rest.partition(":")
    if where != "header" or not colon:
        return None, False
    target = unquote_to_bytes(encoded)
    if not target or b"\0" in target:
        return None, False
    return target, False


def _xattrs(text: str | None) -> Mapping[str, bytes]:
    if not text:
        return _NO_XATTRS
    try:
        values = json.loads(unquote(text))
    except (ValueError, RecursionError):
        return _NO_XATTRS
    if not isinstance(values, dict):
        return _NO_XATTRS
    result = {}
    for name, value in values.items():
        try:
            name.encode()  # a lone surrogate of JSON is no name that could be listed
            result[name] = base64.b64decode(value)
        except (TypeError, ValueError, binascii.Error):
            continue
    return result
