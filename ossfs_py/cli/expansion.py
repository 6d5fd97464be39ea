"""From the paths, globs and lists a person names to the files of a mount they mean."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ossfs_py.control.client import ControlClient, DaemonGoneError, mount_of
from ossfs_py.errors import EnvironmentProblemError, UsageError
from ossfs_py.host.mounttable import MountEntry


@dataclass(slots=True)
class Files:
    """Files of one mount by their paths below the mountpoint, with their sizes in bytes."""

    mount: MountEntry
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Expansion:
    """The files that paths stand for. ``missing`` has the reasons for paths without files."""

    mounts: dict[Path, Files] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def expand(names: Iterable[str]) -> Expansion:
    """Find every file that is meant: a file itself, all below a directory, all that match a glob.

    Symbolic links are followed, as long as they stay in a mount.

    Raises:
        DaemonGoneError: a mount answers no longer.
    """
    found = Expansion()
    for name in names:
        # Path.glob knows no pattern with a fixed beginning of its own.
        matches = [name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        if not matches:
            found.missing[name] = _why_missing(name)
        for match in matches:
            try:
                _take(Path(match), found)
            except DaemonGoneError:
                raise
            except (EnvironmentProblemError, OSError) as exc:
                found.missing[match] = _sentence(exc)
    return found


def read_list(file: str) -> list[str]:
    """The paths in a list file, one a line; empty lines and lines that begin with # say nothing.

    ``-`` is the standard input.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = Path("/dev/stdin" if file == "-" else file).read_text(errors="surrogateescape")
    except OSError as exc:
        raise UsageError(f"--from-file: cannot read {file}: {exc.strerror}") from exc
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _take(path: Path, found: Expansion) -> None:
    mount, below = mount_of(path)
    if mount.mountpoint not in found.mounts:
        _check_daemon(mount)
    root = mount.mountpoint / below
    if root.is_dir():
        for file in _files_below(root, found):
            try:
                _take_file(file, mount, found)
            except (EnvironmentProblemError, OSError) as exc:
                found.missing[str(file)] = _sentence(exc)
    else:
        _take_file(root, mount, found)


def _take_file(file: Path, mount: MountEntry, found: Expansion) -> None:
    if file.is_symlink():
        mount, below = mount_of(file)
        file = mount.mountpoint / below
        if file.is_dir():
            return  # a link to a directory is no way into it, as for find(1)
    size = file.stat().st_size
    files = found.mounts.setdefault(mount.mountpoint, Files(mount))
    files.sizes[str(file.relative_to(mount.mountpoint))] = size


def _files_below(root: Path, found: Expansion) -> Iterator[Path]:
    def failed(exc: OSError) -> None:
        found.missing[str(exc.filename)] = _sentence(exc)

    for directory, _directories, names in os.walk(root, onerror=failed):
        for name in sorted(names):
            yield Path(directory) / name


def _check_daemon(mount: MountEntry) -> None:
    """Raise the sentence about a daemon that is gone before its dead mount is touched."""
    ControlClient.of(mount).close()


def _why_missing(name: str) -> str:
    """Prefer to say that a path is outside every mount, or that the daemon is gone."""
    try:
        _check_daemon(mount_of(Path(name))[0])
        os.lstat(name)
    except FileNotFoundError:
        return "it does not exist" if not glob.has_magic(name) else "nothing matches it"
    except DaemonGoneError:
        raise
    except (EnvironmentProblemError, OSError) as exc:
        return _sentence(exc)
    return "nothing matches it"


def _sentence(exc: EnvironmentProblemError | OSError) -> str:
    if isinstance(exc, OSError):
        return f"it cannot be read: {exc.strerror}"
    return str(exc)
