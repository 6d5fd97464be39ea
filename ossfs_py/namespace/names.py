"""File names: bytes at the kernel, text inside, and which of them a path can carry. Pure."""

from collections.abc import Collection

from ossfs_py.errors import IllegalNameError, InvalidArgumentError, NameTooLongError

MAX_NAME_BYTES = 255
"""NAME_MAX of Linux: the longest path segment in bytes."""

# No character takes more than four bytes of UTF-8, so names this short need not be encoded to be
# measured; listings ask for every key.
_SURELY_SHORT = MAX_NAME_BYTES // 4


def decode(name: bytes) -> str:
    """The text of a name that the kernel sent.

    Raises:
        NameTooLongError: over 255 bytes.
        IllegalNameError: not UTF-8; keys are text, so no key can carry it.
    """
    if len(name) > MAX_NAME_BYTES:
        raise NameTooLongError(f"a name of {len(name)} bytes")
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise IllegalNameError(f"the name {name!r} is not UTF-8") from exc


def is_nameable(segment: str) -> bool:
    """Whether a path can name this segment of a key."""
    if segment in {"", ".", ".."} or "\0" in segment or "/" in segment:
        return False
    if len(segment) <= _SURELY_SHORT:
        return True
    return len(segment.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES


def all_plain(segments: Collection[str]) -> bool:
    """Whether a path can name all of these segments, and each of them at a glance."""
    together = "".join(segments)
    return (
        "/" not in together
        and "\0" not in together
        and not any(special in segments for special in ("", ".", ".."))
        and max(map(len, segments), default=0) <= _SURELY_SHORT
    )


def require_nameable(name: str) -> None:
    """Refuse to create what no path could reach.

    Raises:
        NameTooLongError: over 255 bytes.
        InvalidArgumentError: empty, a dot segment, or with a slash or NUL in it.
    """
    if is_nameable(name):
        return
    if len(name) > _SURELY_SHORT:
        raise NameTooLongError(f"the name {name[:32]!r}… is over {MAX_NAME_BYTES} bytes")
    raise InvalidArgumentError(f"no entry can be called {name!r}")
