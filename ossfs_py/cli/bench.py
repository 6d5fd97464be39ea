"""``ossfs-py bench``."""

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ossfs_py.config import units
from ossfs_py.errors import EnvironmentProblemError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from ossfs_py.bench.run import Shown
    from ossfs_py.bench.works import Work
    from ossfs_py.control.client import ControlClient
    from ossfs_py.host.mounttable import MountEntry

_DEFAULT_SIZE = "256MiB"
_MIN_BYTES = 1024**2


@click.command(
    epilog="""\b
Workloads:
  write        write the file in order, then fsync and close
  sequential   one reader from beginning to end
  parallel     four threads, a quarter each, one descriptor
  interleaved  one thread in turns at eight places, 256 KiB each
  random       100 reads of 4 KiB
  mmap         map the file and touch every page
  create, list, small
               create 100 files of 64 KiB, list and stat them, read them

\b
Examples:
  ossfs-py bench /mnt/models
  ossfs-py bench /mnt/models --size 4GiB --works write,sequential
  ossfs-py bench /mnt/models --file /mnt/models/llama/model.safetensors --json
"""
)
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option("--size", metavar="SIZE", help=f"Size of the file.  [{_DEFAULT_SIZE}]")
@click.option("--file", metavar="PATH", help="Read this file of the mount; write nothing.")
@click.option(
    "--works", metavar="A,B", help="Only these workloads.  [all; with --file, all that read]"
)
@click.option("--keep", is_flag=True, help="Keep the files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    mountpoint: str,
    size: str | None,
    file: str | None,
    works: str | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Measure how fast programs can use the mount at MOUNTPOINT, or a directory in it.

    Writes to a directory of its own and removes it at the end, also after Ctrl-C. Before each
    workload, the mount and the kernel drop the file's bytes, so that they come from the store,
    or from the disk cache of a mount that has one.
    """
    if not mountpoint:
        raise UsageError("MOUNTPOINT: must not be empty")
    if file is not None and (size is not None or keep):
        raise UsageError("--file and --size or --keep cannot be used together")
    wanted = _wanted(works, only_reads=file is not None)
    size_bytes = _size(size or _DEFAULT_SIZE)
    root, entry, below = _mounted(mountpoint)

    from ossfs_py.bench.observed import ObservedDaemon
    from ossfs_py.bench.run import Bench, existing_material, own_material, scratch_directory
    from ossfs_py.cli.bench_report import Report
    from ossfs_py.control.client import mount_of
    from ossfs_py.host.interrupts import unwinding

    if file is not None and mount_of(Path(file))[0] != entry:
        raise UsageError(f"--file: {file} is not in the mount at {entry.mountpoint}")
    with (
        unwinding(signal.SIGTERM, signal.SIGHUP),
        _client(entry) as client,
        _progress() as shown,
        nullcontext() if file is not None else scratch_directory(root, keep=keep) as directory,
    ):
        if directory is None:
            material = existing_material(Path(str(file)))
        else:
            material = own_material(directory, size_bytes)
            below = f"{below}/{directory.name}" if below else directory.name
        daemon = ObservedDaemon(client, below) if client is not None else None
        measured = list(Bench(material, shown, daemon).run(wanted))
    told = Report(
        root,
        entry,
        client.mount.data_path if client is not None else None,
        material,
        measured,
        directory if keep else None,
    )
    if as_json:
        click.echo(json.dumps(told.document(), indent=1))
    else:
        told.show()
    return 0


def _wanted(names: str | None, *, only_reads: bool) -> "list[Work]":
    from ossfs_py.bench.works import WORKS

    if names is None:
        return [one for one in WORKS if not only_reads or not (one.writes or one.needs_small)]
    by_name = {one.name: one for one in WORKS}
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in by_name:
            raise UsageError(f"--works: {name!r} is none of {', '.join(by_name)}")
        if only_reads and (by_name[name].writes or by_name[name].needs_small):
            raise UsageError(f"--works: {name} writes files, which --file excludes")
    return [by_name[name] for name in chosen]


def _size(text: str) -> int:
    try:
        size = units.parse_size(text)
    except ValueError as exc:
        raise UsageError(f"--size: {exc}") from exc
    if size < _MIN_BYTES:
        raise UsageError(f"--size: must be at least {units.format_size(_MIN_BYTES)}")
    return size


def _mounted(mountpoint: str) -> "tuple[Path, MountEntry, str]":
    """The measured directory, its mount, and where in the mount it lies."""
    from ossfs_py.control.client import mount_of
    from ossfs_py.host.standing import Standing, look_at

    path = Path(mountpoint)
    entry, below = mount_of(path)
    seen = look_at(entry.mountpoint)
    if not (seen.is_alive or seen.standing is Standing.HIDDEN):
        problem = seen.problem or "was left by a daemon that is gone"
        raise EnvironmentProblemError(
            f"the mount at {entry.mountpoint} does not work: it {problem}"
        )
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except OSError as exc:
        raise EnvironmentProblemError(f"{path} cannot be used: {exc.strerror}") from exc
    if not is_directory:
        raise EnvironmentProblemError(f"{path} is not a directory")
    return path.resolve(), entry, below


@contextmanager
def _client(entry: "MountEntry") -> "Iterator[ControlClient | None]":
    """The daemon; None if it is somebody else's, whose mount may be measured all the same."""
    from ossfs_py.control.client import ControlClient

    if os.geteuid() not in (0, entry.owner):
        yield None
        return
    with ControlClient.of(entry) as client:
        yield client


class _Bar:
    """Progress of the benchmark, on the terminal."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def begin(self, title: str, total: int | None) -> Callable[[int], None]:
        """Show a new bar in place of the last one."""
        self._progress.remove_task(self._task)
        self._task = task = self._progress.add_task(title, total=total)
        return lambda amount: self._progress.advance(task, amount)


@contextmanager
def _progress() -> "Iterator[Shown]":
    """A bar on the terminal's standard error; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield _Bar(progress)
