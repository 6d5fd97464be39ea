"""The writer of a file: ``--record-writer`` stores it as metadata that any client can read."""

import functools
import pwd
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

WRITER, WRITTEN = "written-by", "written-at"
"""Names of the metadata: ``ada@gpu-7`` and a time in UTC, by the writer's clock."""
_MAX_METADATA_BYTES = 2048
"""The limit of S3 and OSS for one object; names and values count."""


def signed(metadata: Mapping[str, str], uid: int, *, record: bool) -> Mapping[str, str]:
    """The metadata of bytes that a user wrote, without earlier writers; ``metadata`` or a copy.

    The writer is left out if the metadata has no room for it: the file matters more.
    """
    if not (record or WRITER in metadata or WRITTEN in metadata):
        return metadata
    others = dict(metadata)
    others.pop(WRITER, None)
    others.pop(WRITTEN, None)
    if not record:
        return others
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    both = others | {WRITER: f"{_user(uid)}@{_machine()}", WRITTEN: now}
    size = sum(len(name) + len(value.encode()) for name, value in both.items())
    return both if size <= _MAX_METADATA_BYTES else others


@functools.lru_cache(maxsize=1024)
def _user(uid: int) -> str:
    try:
        return quote(pwd.getpwuid(uid).pw_name, safe="@ \\")
    except KeyError:
        return str(uid)


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    return quote(socket.gethostname(), safe="")
