"""Settings for mounting."""

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
    """The kernel's side of a mount that another process has made, and unmounts."""
    lane: bool = False
    """Whether the lane answers the most frequent requests without pyfuse3, if possible."""
    passthrough: bool = False
    """Whether the kernel may read local files itself; only with the lane."""
    kernel_options: tuple[str, ...] = ()
    """Further options for the kernel (noexec, noatime); nosuid and nodev always hold."""
