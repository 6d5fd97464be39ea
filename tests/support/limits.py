"""A memory limit on a process that runs already, by the kernel's cgroups, where they can be had."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """The cgroup of one process."""

    directory: Path
    unified: bool
    """cgroup version 2."""

    @property
    def peak_bytes(self) -> int | None:
        """Most memory in use so far, page cache included; None where the kernel does not tell."""
        path = self.directory / ("memory.peak" if self.unified else "memory.max_usage_in_bytes")
        return int(path.read_text()) if path.exists() else None

    @property
    def killed(self) -> int:
        """How often the kernel killed for lack of memory."""
        path = self.directory / ("memory.events" if self.unified else "memory.oom_control")
        fields = dict(line.split() for line in path.read_text().splitlines())
        return int(fields.get("oom_kill", 0))


@contextlib.contextmanager
def memory_limited(pid: int, limit_bytes: int) -> Iterator[MemoryGroup | None]:
    """Nothing beyond ``limit_bytes`` for the process from now on.

    None where this machine does not let us (containers); memory is to be measured then.
    """
    unified = (_ROOT / "cgroup.controllers").exists()
    parent = _ROOT if unified else _ROOT / "memory"
    directory = parent / f"ossfs-py-test-{os.getpid()}-{pid}"
    try:
        directory.mkdir()
        name = "memory.max" if unified else "memory.limit_in_bytes"
        (directory / name).write_text(str(limit_bytes))
        (directory / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            directory.rmdir()
        yield None
        return
    try:
        yield MemoryGroup(directory, unified)
    finally:
        with contextlib.suppress(OSError):
            # It can be removed when no process is in it.
            (parent / "cgroup.procs").write_text(str(pid))
        directory.rmdir()
