"""``ossfs-py recover``."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ossfs_py.cli.terminal import console, printable, say
from ossfs_py.errors import (
    ConditionFailedError,
    EnvironmentProblemError,
    OssfsError,
    UsageError,
    VersionChangedError,
)

if TYPE_CHECKING:
    from ossfs_py.store.base import ObjectStore
    from ossfs_py.telemetry.metrics import Metrics
    from ossfs_py.writing.journal import Journal
    from ossfs_py.writing.leftovers import Leftovers
    from ossfs_py.writing.records import DirtyRecord
    from ossfs_py.writing.recovery import Recovery

_SHOWN_ID = 8
"""Characters of an id that are shown; any unambiguous beginning is understood."""
_CHECK_SECONDS = 8.0


@dataclass(frozen=True)
class _Unsaved:
    """One unsaved file and where it is."""

    place: "_Place"
    record: "DirtyRecord"

    @property
    def ident(self) -> str:
        return self.record.ident

    @property
    def source(self) -> str:
        bucket = self.place.leftovers.bucket or "?"
        return f"{bucket}/{self.record.key}" if self.record.key else f"{bucket}/?"

    @property
    def path(self) -> Path:
        return self.place.journal.unsaved_path(self.ident)

    def fields(self) -> dict[str, Any]:
        """The output of ``--json``."""
        status = self.path.stat() if self.path.exists() else None
        return {
            "id": self.ident,
            "bucket": self.place.leftovers.bucket,
            "key": self.record.key,
            "size": self.record.size if self.record.key else None,
            "mountpoint": self.place.leftovers.mountpoint,
            "modified": status.st_mtime if status is not None else None,
            "path": str(self.path),
            "problem": self.record.reason,
        }


class _Place:
    """One mount's unsaved files and, once somebody needs it, its store."""

    def __init__(
        self, leftovers: "Leftovers", journal: "Journal", recovery: "Recovery", stack: ExitStack
    ) -> None:
        self.leftovers = leftovers
        self.journal = journal
        self.recovery = recovery
        self._stack = stack
        self._store: ObjectStore | None = None

    def store(self, metrics: "Metrics") -> "ObjectStore":
        from ossfs_py.store import open_store

        if self._store is None:
            options = self.leftovers.options
            if options is None:
                raise EnvironmentProblemError(
                    f"{self.leftovers.directory} does not record which store it belongs to:"
                    " export the files instead"
                )
            store = open_store(options, metrics)
            self._stack.callback(store.close)
            store.check(options.scratch_prefix, _CHECK_SECONDS)
            self._store = store
        return self._store


@click.command(
    epilog="""\b
Examples:
  ossfs-py recover                          what is waiting, of all mounts
  ossfs-py recover --upload                 bring everything to its bucket
  ossfs-py recover --upload 3f2a --overwrite
  ossfs-py recover --export /tmp/rescued
  ossfs-py recover --discard 3f2a

\b
Exit codes: 0 done, 1 something could not be done, 2 wrong usage.
"""
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--list", "listing", is_flag=True, help="Show the unsaved files (the default).")
@click.option("--upload", is_flag=True, help="Upload the files to their bucket.")
@click.option("--export", "target", metavar="DIR", help="Write the files to a local directory.")
@click.option("--discard", is_flag=True, help="Delete the files permanently.")
@click.option("--all", "everything", is_flag=True, help="With --discard: all files.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="With --upload: overwrite what other clients have written since.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--state-dir",
    metavar="DIR",
    envvar="OSSFS_PY_STATE_DIR",
    help="Where mounts keep unsaved data.  [/var/lib/ossfs-py, or ~/.local/state/ossfs-py]",
)
def recover(
    ids: tuple[str, ...],
    listing: bool,
    upload: bool,
    target: str | None,
    discard: bool,
    everything: bool,
    overwrite: bool,
    as_json: bool,
    state_dir: str | None,
) -> int:
    """List, upload, export or delete files that a mount could not save.

    Such files remain when a daemon is killed, when a store refuses an upload, or when a program
    gives up after an error. Without ID, the command applies to all of them.
    """
    if sum((listing, upload, target is not None, discard)) > 1:
        raise UsageError("only one of --list, --upload, --export and --discard can be used")
    if overwrite and not upload:
        raise UsageError("--overwrite: works with --upload only")
    if everything and not discard:
        raise UsageError("--all: works with --discard only")
    if discard and everything == bool(ids):
        raise UsageError("--discard: name the files to discard by their ids, or use --all")
    with ExitStack() as stack:
        place = _state_dir(state_dir)
        found = list(_unsaved(place, stack))
        chosen = _chosen(found, ids)
        act: Act | None = None
        if upload:
            act = _uploader(overwrite)
        elif target is not None:
            act = _exporter(target)
        elif discard:
            act = _discarder()
        if not (chosen or as_json):
            is_mistaken = state_dir is not None and not place.exists()
            missing = f": there is no {place}" if is_mistaken else ""
            say(f"Nothing is waiting to be recovered{missing}.")
        elif act is not None:
            return _for_each(chosen, act, as_json)
        else:
            _show(chosen, as_json)
    return 0


def _state_dir(given: str | None) -> Path:
    import os

    from ossfs_py.config.machine import default_state_dir

    if given is None:
        return default_state_dir(os.environ)
    if not given:
        raise UsageError("--state-dir: must not be empty")
    return Path(given).expanduser().absolute()


def _unsaved(state_dir: Path, stack: ExitStack) -> Iterator[_Unsaved]:
    from ossfs_py.writing.leftovers import leftovers_in

    for leftovers in leftovers_in(state_dir):
        journal, recovery = stack.enter_context(leftovers.opened())
        place = _Place(leftovers, journal, recovery, stack)
        for record in recovery.list():
            yield _Unsaved(place, record)


def _chosen(found: list[_Unsaved], ids: tuple[str, ...]) -> list[_Unsaved]:
    if not ids:
        return found
    chosen: dict[str, _Unsaved] = {}
    for ident in ids:
        matching = [one for one in found if ident and one.ident.startswith(ident)]
        if len(matching) != 1:
            problem = "several unsaved files begin" if matching else "no unsaved file begins"
            raise EnvironmentProblemError(f"{problem} with {ident!r}")
        chosen[matching[0].ident] = matching[0]
    return list(chosen.values())


def _show(found: list[_Unsaved], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([one.fields() for one in found], indent=1))
        return
    from rich.table import Table

    from ossfs_py.config.units import format_size

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", no_wrap=True)
    table.add_column("SIZE", justify="right", no_wrap=True)
    table.add_column("MODIFIED", no_wrap=True)
    table.add_column("OBJECT", overflow="fold")
    table.add_column("MOUNTPOINT", overflow="fold")
    for one in found:
        told = one.fields()
        modified = told["modified"]
        table.add_row(
            one.ident[:_SHOWN_ID],
            "?" if told["size"] is None else format_size(told["size"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(modified)) if modified else "?",
            printable(one.source + (f" ({told['problem']})" if told["problem"] else "")),
            printable(told["mountpoint"] or "?"),
        )
    console().print(table)


Act = Callable[[_Unsaved], dict[str, Any]]


def _for_each(chosen: list[_Unsaved], act: Act, as_json: bool) -> int:
    """Do the same to every file; one that fails keeps no other from being done."""
    from rich.markup import escape
    from rich.progress import Progress

    results: list[dict[str, Any]] = []
    failed = 0
    screen = console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("", total=len(chosen))
        for one in chosen:
            progress.update(task, description=escape(printable(one.source)))
            result: dict[str, Any] = {"id": one.ident, "key": one.record.key}
            try:
                result |= act(one)
            except (OssfsError, OSError) as exc:
                failed += 1
                result["error"] = _sentence(exc)
                sentence = f"ossfs-py: {one.source}: {result['error']}"
                screen.print(printable(sentence), soft_wrap=True)
            else:
                if not as_json:
                    say(f"{one.source}: {result['done']}")
            results.append(result)
            progress.advance(task)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    return 1 if failed else 0


def _sentence(exc: OssfsError | OSError) -> str:
    if isinstance(exc, ConditionFailedError):
        return "another client has written the object since: --overwrite replaces it"
    if isinstance(exc, VersionChangedError):
        return "the object has been replaced since: export the changes instead"
    if isinstance(exc, OSError):
        return f"{exc.strerror}: {exc.filename}" if exc.filename else str(exc.strerror)
    return str(exc)


def _uploader(overwrite: bool) -> Act:
    from ossfs_py.telemetry.metrics import Metrics

    metrics = Metrics()

    def act(one: _Unsaved) -> dict[str, Any]:
        store = one.place.store(metrics)
        version = one.place.recovery.upload(one.ident, store, overwrite=overwrite)
        return {"done": "uploaded", "size": version.size, "etag": version.etag}

    return act


def _exporter(target: str) -> Act:
    from ossfs_py.config.units import format_size
    from ossfs_py.telemetry.metrics import Metrics

    directory = Path(target).expanduser().absolute()
    if not directory.is_dir():
        raise EnvironmentProblemError(f"--export: {directory} is not a directory")
    metrics = Metrics()

    def act(one: _Unsaved) -> dict[str, Any]:
        store = None
        if one.record.base_valid:
            store = one.place.store(metrics)
        exported = one.place.recovery.export(one.ident, directory, store)
        missing = sum(span.size for span in exported.missing)
        done = f"written to {exported.path}"
        if missing:
            done += f"; {format_size(missing)} are lost and read as zeros"
        return {"done": done, "path": str(exported.path), "missing_bytes": missing}

    return act


def _discarder() -> Act:
    from ossfs_py.telemetry.metrics import Metrics

    metrics = Metrics()

    def act(one: _Unsaved) -> dict[str, Any]:
        at_store = one.record.sent is not None or one.record.scratch
        one.place.recovery.discard(one.ident, one.place.store(metrics) if at_store else None)
        return {"done": "dropped"}

    return act
