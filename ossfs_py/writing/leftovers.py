"""Unsaved files of this host's mounts: where they are, and which store they belong to.

Each mount records how its store is reached, without secrets, so that ``ossfs-py recover`` can
finish the work of the mount, even years later and under another user's mounts.
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store import StoreOptions
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.recovery import Recovery
from ossfs_py.writing.segments import count_files

_NAME = "source.json"
_FORMAT = 1
_PATHS = ("credentials_file", "ca_bundle", "traits_dir", "sse_key_file")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The state directory of one mount. ``options`` is None if it is not known how to reach the
    store: then its files can only be exported and dropped.
    """

    directory: Path
    mountpoint: str
    options: StoreOptions | None

    @property
    def bucket(self) -> str:
        """The bucket's name, empty if unknown."""
        return self.options.bucket if self.options is not None else ""

    @contextmanager
    def opened(self) -> Iterator[tuple[Journal, Recovery]]:
        """The unsaved files, including those of a killed daemon, for the duration of the block.

        A mount may be running; a second recovery may not.

        Raises:
            EnvironmentProblemError: the directory cannot be used, or another recovery uses it.
        """
        journal = Journal(self.directory, beside_mount=True)
        try:
            if journal.alone:
                journal.claim_leftovers()
            yield journal, Recovery(journal)
        finally:
            journal.close()


def remember(directory: Path, mountpoint: Path, options: StoreOptions) -> None:
    """Record the mountpoint and the store of a mount's state directory."""
    kept = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }
    text = json.dumps({"format": _FORMAT, "mountpoint": str(mountpoint), "store": kept})
    temporary = directory / f"{_NAME}.tmp"
    temporary.touch(0o600)
    temporary.write_text(text)
    temporary.rename(directory / _NAME)


def forget_if_empty(directory: Path) -> None:
    """A mount has ended: drop the record of its store if it left nothing unsaved."""
    if not any(directory.glob("*/*")):
        (directory / _NAME).unlink(missing_ok=True)


def count_unsaved(directory: Path, *, ended: bool) -> int:
    """Number of unsaved files in a mount's state directory, as far as this user may see it.

    For a mount that has ``ended`` it includes files that a killed daemon was still writing.
    """
    rooms = ("unsaved", "staging") if ended else ("unsaved",)
    count = sum(1 for room in rooms for _record in (directory / room).glob("*.json"))
    return count + (count_files(directory / "segments") if ended else 0)


def sentence_about_unsaved(directory: Path, count: int) -> str:
    """The sentence about unsaved files for a person."""
    files = (
        "1 file that could not be saved is"
        if count == 1
        else (f"{count} files that could not be saved are")
    )
    command = f"ossfs-py recover --state-dir {shlex.quote(str(directory.parent))}"
    return f"{files} kept in {directory}: {command}"


def leftovers_in(state_dir: Path) -> list[Leftovers]:
    """Every mount's part of a state directory, whether or not anything is unsaved there.

    Raises:
        EnvironmentProblemError: the directory cannot be read.
    """
    try:
        found = [path for path in sorted(state_dir.iterdir()) if (path / "lock").exists()]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise EnvironmentProblemError(
            f"the state directory {state_dir} cannot be read: {exc.strerror}"
        ) from exc
    return [_read(path) for path in found]


def _read(directory: Path) -> Leftovers:
    try:
        content = json.loads((directory / _NAME).read_text())
        if content["format"] != _FORMAT:
            return Leftovers(directory, "", None)
        known = {field.name for field in fields(StoreOptions)}
        store = {name: value for name, value in content["store"].items() if name in known}
        for name in _PATHS:
            store[name] = Path(store[name]) if store.get(name) else None
        return Leftovers(directory, str(content["mountpoint"]), StoreOptions(**store))
    except (OSError, ValueError, KeyError, TypeError):
        # Damaged or missing: the bytes can still be exported.
        return Leftovers(directory, "", None)
