"""What has to be known to mount."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """How the kernel mounts it. ``source`` is what df and mount show as the device."""

    mountpoint: Path
    source: str
    read_only: bool
    allow_other: bool
    readahead_bytes: int
    descriptor: int | None = None
    """The kernel's side of a mount that somebody else has made, and unmounts."""
    lane: bool = False
    """Whether what is asked most is answered past pyfuse3, where that can be."""
    passthrough: bool = False
    """Whether the kernel may be given local files to read itself; with the lane only."""
    kernel_options: tuple[str, ...] = ()
    """What else the kernel enforces (noexec, noatime); nosuid and nodev always hold."""
