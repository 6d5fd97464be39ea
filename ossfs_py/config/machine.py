"""Defaults that depend on the machine and on who mounts."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ossfs_py.config.units import GIB, MIB

MIN_MEMORY_BYTES = 64 * MIB
"""Below this a handful of readers with 8 MiB blocks would only wait for one another."""
_DEFAULT_MEMORY_BYTES = GIB
_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "OSS_ACCESS_KEY_SECRET",
    "OSS_SESSION_TOKEN",
)


def default_memory_limit() -> int:
    """The smaller of 1 GiB and a quarter of what this process may use, at least 64 MiB."""
    return max(MIN_MEMORY_BYTES, min(_DEFAULT_MEMORY_BYTES, usable_memory() // 4))


def usable_memory() -> int:
    """Bytes of memory that this process may have before something is killed for it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((physical, *cgroup_memory_limits(Path("/"))))


def cgroup_memory_limits(root: Path) -> Iterator[int]:
    """The memory limits, in bytes, of this process's cgroup and its ancestors (v1 and v2)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path is often the host's and not visible here; the group's own
        # files are then mounted at the base.
        group = base / path.lstrip("/")
        for directory in (group, *group.parents):
            limit = _read(directory / name).strip()
            if limit.isdigit():
                yield int(limit)
            if directory == base:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """The directory of unsaved data and upload journals, which must survive a reboot."""
    if os.geteuid() == 0:
        return Path("/var/lib/ossfs-py")
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "ossfs-py"


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """The directory in which the ``cache`` data path keeps blocks; may be deleted at any time."""
    if os.geteuid() == 0:
        return Path("/var/cache/ossfs-py")
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "ossfs-py"


def default_temp_dir(environ: Mapping[str, str]) -> Path:
    """The directory of temporary files: /var/tmp, because /tmp is often memory and too small for a
    model."""
    return Path(environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 (files there are made O_EXCL)


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """Credentials that stand in the environment, to be kept out of logs."""
    return [environ[name] for name in _SECRET_VARIABLES if environ.get(name)]


def is_container() -> bool:
    """Whether an engine has started this process: podman and our image set this variable, as
    systemd's container interface has it. (A file like /.dockerenv says less: build machines have
    it, too.)
    """
    return bool(os.environ.get("container"))  # noqa: SIM112 (podman and systemd write it so)


def stderr_is_the_journal(environ: Mapping[str, str]) -> bool:
    """Whether systemd has connected standard error to its journal (systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    # The XDG specification says to ignore relative paths.
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else Path.home() / below_home
