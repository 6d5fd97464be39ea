"""Warnings about containers in which a mount is slow, small or not visible, given at the start.

None of these conditions keeps a mount from working, so none of them is refused.
"""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ossfs_py.config import Settings
from ossfs_py.config.machine import is_container, usable_memory
from ossfs_py.config.units import MIB, format_size
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import THIS_MACHINE, Machine
from ossfs_py.host.mounttable import MountEntry

_LAYERS = ("overlay", "aufs", "fuse.fuse-overlayfs")
"""File systems of the root of a container; their bytes go with the container."""
_LEAST_FILES = 1024
"""A connection and a file each for --concurrency and every open file of the temp data path."""
_PYTHON_BYTES = 70 * MIB
"""Memory of a daemon beside --memory-limit; with 96 MiB for both it was killed under load."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine or container of the daemon; tests replace parts of it."""

    machine: Machine = THIS_MACHINE
    devices: Path = Path("/sys/devices/virtual/bdi")
    is_container: bool = field(default_factory=is_container)
    """Whether an engine has started this process."""
    file_limits: tuple[int, int] = field(
        default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)
    )

    memory_bytes: int = field(default_factory=usable_memory)
    """More than this, and the kernel kills the daemon."""

    def mount_below(self, path: Path) -> MountEntry | None:
        """The mount that ``path`` lies in; one at ``path`` itself is left out."""
        around = [
            entry
            for entry in self.machine.mounts()
            if path.is_relative_to(entry.mountpoint) and path != entry.mountpoint
        ]
        deepest = max((len(entry.mountpoint.parts) for entry in around), default=0)
        return next((e for e in reversed(around) if len(e.mountpoint.parts) == deepest), None)


def warnings(settings: Settings, mountpoint: Path, around: Surroundings) -> Iterator[str]:
    """Warnings for a mount that runs in a container."""
    if not around.is_container:
        return
    below = around.mount_below(mountpoint)
    if below is not None and not below.is_shared:
        yield (
            f"the mount at {mountpoint} is not visible outside this container: the directory above"
            " it must be a volume with propagation rshared (Kubernetes: Bidirectional)"
        )
    if around.devices.exists() and os.statvfs(around.devices).f_flag & os.ST_RDONLY:
        yield (
            "/sys is read-only, so the kernel reads only 128 KiB ahead and reading is slower by a"
            f" third: give the container {around.devices} as a volume"
        )
    soft, hard = around.file_limits
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        yield (
            f"only {soft} files may be open at once (hard limit {hard}): raise it with --ulimit"
            " nofile=65536"
        )
    needed = settings.memory_limit_bytes + _PYTHON_BYTES
    if around.memory_bytes < needed:
        yield (
            f"the container has {format_size(around.memory_bytes)} of memory and may need"
            f" {format_size(needed)} (--memory-limit and Python): it will be killed under load"
        )
    for option, path, loss in _written(settings):
        where = around.mount_below(path / "x")
        if where is not None and where.filesystem_type in _LAYERS:
            yield f"--{option}: {path} is in the container's own layer, {loss}: put a volume there"


def check_kept(settings: Settings, around: Surroundings) -> None:
    """See whether another container could go on with what is written.

    Raises:
        EnvironmentProblemError: it could not.
    """
    if settings.keeper is None or settings.read_only or not around.is_container:
        return
    where = around.mount_below(settings.state_dir / "x")
    if where is not None and where.filesystem_type in _LAYERS:
        raise EnvironmentProblemError(
            f"--state-dir: {settings.state_dir} is in the container's own layer, which the next"
            " container does not have: --keeper needs a volume there, unless the mount is read-only"
        )


def _written(settings: Settings) -> Iterator[tuple[str, Path, str]]:
    """The directories that the mount fills, and what is wrong with the container's layer there."""
    if settings.data_path == "temp":
        yield "temp-dir", settings.temp_dir, "which files that are read will fill"
    if settings.data_path == "cache":
        yield "cache-dir", settings.cache_dir, "so the cache ends with the container"
    if not settings.read_only:
        yield "state-dir", settings.state_dir, "so unsaved data ends with the container"
