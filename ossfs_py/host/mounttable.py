"""The kernel's mount table, the one place where it is parsed.

Whoever asks it learns where mounts are without touching them: stat(2) on a dead FUSE mount fails
and on a hanging one never returns.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
"""The kernel writes space, tab, newline and backslash so (040, 011, 012, 134), other bytes as they
are (fs/proc_namespace.c)."""


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of the kernel's mount table."""

    mountpoint: Path
    filesystem_type: str
    source: str
    options: str
    """Options of the file system (``user_id=0,group_id=0,...`` for FUSE)."""
    device: str = ""
    """``major:minor``, as in /sys/class/bdi; the same for copies in other namespaces."""
    mount_id: int = 0
    is_shared: bool = False
    """Whether what is mounted below it shows up in the namespaces that it came from."""

    @property
    def is_fuse(self) -> bool:
        """Whether a user-space daemon serves it."""
        return self.filesystem_type.partition(".")[0] in ("fuse", "fuseblk")

    @property
    def owner(self) -> int | None:
        """The user a FUSE mount belongs to."""
        return self._number("user_id")

    @property
    def group(self) -> int | None:
        """The group of the user that a FUSE mount belongs to."""
        return self._number("group_id")

    def _number(self, name: str) -> int | None:
        match = re.search(rf"(?:^|,){name}=(\d+)", self.options)
        return int(match[1]) if match else None


def read_mount_table(table: Path) -> list[MountEntry]:
    """The entries of a file like /proc/self/mountinfo, in the order of mounting."""
    # Only a newline ends a line: names may hold a carriage return, or U+2028.
    return [_parse(line) for line in table.read_bytes().split(b"\n") if line]


def _parse(line: bytes) -> MountEntry:
    # proc(5): id parent major:minor root mountpoint options [tags] - type source super-options
    before, _, after = line.partition(b" - ")
    fields = before.split(b" ")
    kind, source, options = [*after.split(b" "), b"", b""][:3]
    return MountEntry(
        mountpoint=Path(_text(fields[4])),
        filesystem_type=_text(kind),
        source=_text(source),
        options=_text(options),
        device=_text(fields[2]),
        mount_id=int(fields[0]),
        is_shared=any(tag.startswith(b"shared:") for tag in fields[6:]),
    )


def _text(field: bytes) -> str:
    return os.fsdecode(_OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
