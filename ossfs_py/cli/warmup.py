"""``ossfs-py warmup``."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ossfs_py.cli.formatting import short_size
from ossfs_py.cli.terminal import console, printable, say
from ossfs_py.config.units import counted
from ossfs_py.errors import EnvironmentProblemError, UsageError

if TYPE_CHECKING:
    from ossfs_py.cli.expansion import Expansion, Files
    from ossfs_py.control.client import ControlClient

_BATCH_FILES = 5000
"""Paths in one request: at most some 600 KiB with usual names, 5 MiB with the longest."""
_BATCH_BYTES = 1024**2
_SHOWN_MISSING = 20
_SHARED_OVERHEAD = 1.1
"""Memory that memcached takes for what it keeps."""

Report = dict[str, Any]


@click.command(
    epilog="""\b
Examples:
  ossfs-py warmup /mnt/models/llama-70b
  ossfs-py warmup '/mnt/models/**/*.safetensors' --threads 64
  ossfs-py warmup --from-file nightly.txt --background
  ossfs-py warmup --check --json /mnt/models
  ossfs-py warmup --shared /mnt/models/llama-70b

\b
Exit codes: 0 everything is cached, 1 something is missing, 2 wrong usage.
"""
)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--from-file", metavar="LIST", help="File with more paths, one on each line; - is stdin."
)
@click.option(
    "--shared",
    is_flag=True,
    help="Load into the memory of the machines that share a cache (see --shared-cache of mount).",
)
@click.option("--check", is_flag=True, help="Only show how much of each file is cached.")
@click.option("--evict", is_flag=True, help="Remove the files from the cache instead.")
@click.option(
    "--threads", type=click.IntRange(1, 512), help="Number of parallel requests.  [--concurrency]"
)
@click.option(
    "--background", is_flag=True, help="Return at once; the log of the daemon reports the end."
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def warmup(
    paths: tuple[str, ...],
    from_file: str | None,
    shared: bool,
    check: bool,
    evict: bool,
    threads: int | None,
    background: bool,
    as_json: bool,
) -> int:
    """Load files into a cache of their mount before they are needed.

    PATH is a file, a directory with everything below it, or a quoted glob. The cache is that on
    disk (--data-path cache). With --shared it is the memory of the machines that share one: run it
    on one machine, or on several at once; each block is downloaded by one of them.

    Blocks that are cached already are skipped, so run an interrupted warm-up again to continue.
    """
    if check + evict + background > 1:
        raise UsageError("--check, --evict and --background cannot be used together")
    if shared and evict:
        raise UsageError("--evict and --shared cannot be used together: memcached evicts by itself")
    from ossfs_py.cli.expansion import expand, read_list

    names = [*paths, *(read_list(from_file) if from_file else [])]
    if not names:
        raise UsageError("warmup needs a PATH or --from-file")
    found = expand(names)
    where = "shared" if shared else "cache"
    if check:
        return _check(found, where, as_json)
    if evict:
        return _evict(found, as_json)
    arguments: dict[str, Any] = {"background": background}
    if threads is not None:
        arguments["threads"] = threads
    return _warm_up(found, where, arguments, as_json)


# -- warming up ----------------------------------------------------------------------------------


def _warm_up(found: "Expansion", where: str, arguments: dict[str, Any], as_json: bool) -> int:
    """``where`` is what the daemon's commands begin with."""
    began = time.monotonic()
    background = arguments["background"]
    totals = {"files": 0, "bytes": 0, "fetched_bytes": 0}
    missing = dict(found.missing)
    sizes = [size for files in found.mounts.values() for size in files.sizes.values()]
    _tell_what_does_not_fit(found, where)
    with _bar(len(sizes), sum(sizes), shown=not (as_json or background)) as advance:
        for client, prefix, batch in _batches(found):

            def on_progress(state: Mapping[str, Any]) -> None:
                advance(
                    totals["files"] + state["files_done"],
                    bytes_before + state["bytes_done"],  # noqa: B023 - called in this round only
                )

            bytes_before = totals["bytes"]
            result = client.call(f"{where}.warm-up", {**arguments, "paths": batch}, on_progress)
            for name in totals:
                totals[name] += result.get(name, 0)
            missing |= _missing(prefix, result)
    report = {**totals, "seconds": round(time.monotonic() - began, 3), "missing": missing}
    if as_json:
        _tell_json(report)
    else:
        _tell_missing(missing)
        say(_summary(report, background))
    return 1 if missing else 0


def _tell_what_does_not_fit(found: "Expansion", where: str) -> None:
    """The first files are evicted again when the last come in: said before hours of fetching."""
    from ossfs_py.control.client import ControlClient

    for mountpoint, files in found.mounts.items():
        wanted = sum(files.sizes.values())
        with ControlClient.of(files.mount) as client:
            shown = client.call(f"{where}.show")
        if where == "shared":
            capacity = int(shown["memory_bytes"] / _SHARED_OVERHEAD)
            what, option = "the shared cache", "memcached's option -m"
            if shown["down"]:
                names = ", ".join(shown["down"])
                say(f"ossfs-py: warning: these nodes are down and skipped: {names}", err=True)
        else:
            capacity = shown["capacity_bytes"]
            what = "the cache"
            option = "--cache-size" if capacity == shown["limit_bytes"] else "--min-free"
        if wanted > capacity:
            told = f"{short_size(wanted)} do not fit into {what} of {mountpoint}"
            outcome = f"the files that are fetched first will be evicted again (see {option})"
            say(f"ossfs-py: warning: {told} ({short_size(capacity)}): {outcome}", err=True)


def _summary(report: Report, background: bool) -> str:
    if background:
        return f"The daemon warms up {counted(report['files'], 'file')}."
    seconds = max(report["seconds"], 0.001)
    rate = short_size(int(report["fetched_bytes"] / seconds))
    return (
        f"{counted(report['files'], 'file')}, {short_size(report['bytes'])}:"
        f" {short_size(report['fetched_bytes'])} fetched in {seconds:.1f} s ({rate}/s)"
    )


@contextmanager
def _bar(files: int, size: int, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's standard error; elsewhere nothing."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.fields[files]}/{task.fields[of]} files"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    disable = not (shown and screen.is_terminal)
    with Progress(*columns, console=screen, transient=True, disable=disable) as progress:
        task = progress.add_task("", total=size, files=0, of=files)
        yield lambda done, total: progress.update(task, completed=total, files=done)


# -- looking and evicting ------------------------------------------------------------------------


def _check(found: "Expansion", where: str, as_json: bool) -> int:
    missing = dict(found.missing)
    rows: list[Report] = []
    for client, prefix, batch in _batches(found):

        def on_progress(part: Mapping[str, Any]) -> None:
            rows.extend({**row, "path": f"{prefix}/{row['path']}"} for row in part["files"])  # noqa: B023

        result = client.call(f"{where}.check", {"paths": batch}, on_progress)
        missing |= _missing(prefix, result)
    size, cached = (sum(row[name] for row in rows) for name in ("bytes", "cached_bytes"))
    if as_json:
        _tell_json({"files": rows, "bytes": size, "cached_bytes": cached, "missing": missing})
    else:
        _check_table(rows, size, cached)
        _tell_missing(missing)
    return 1 if missing or cached < size else 0


def _check_table(rows: list[Report], size: int, cached: int) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("CACHED", "SIZE", "SHARE"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("FILE", overflow="fold")
    for row in [*rows, {"path": "all", "bytes": size, "cached_bytes": cached}]:
        share = row["cached_bytes"] / row["bytes"] if row["bytes"] else 1.0
        table.add_row(
            short_size(row["cached_bytes"]),
            short_size(row["bytes"]),
            f"{share:.0%}",
            printable(row["path"]),
        )
    console().print(table)


def _evict(found: "Expansion", as_json: bool) -> int:
    missing = dict(found.missing)
    report: Report = {"files": 0, "freed_bytes": 0, "in_use": []}
    for client, prefix, batch in _batches(found):
        result = client.call("cache.evict", {"paths": batch})
        report["files"] += result["files"]
        report["freed_bytes"] += result["freed_bytes"]
        report["in_use"] += [f"{prefix}/{path}" for path in result["in_use"]]
        missing |= _missing(prefix, result)
    if as_json:
        _tell_json({**report, "missing": missing})
    else:
        for path in report["in_use"]:
            say(f"ossfs-py: {path} was not removed: it is open", err=True)
        _tell_missing(missing)
        say(f"{short_size(report['freed_bytes'])} freed.")
    return 1 if missing or report["in_use"] else 0


# -- common --------------------------------------------------------------------------------------


def _batches(found: "Expansion") -> Iterator[tuple["ControlClient", str, list[str]]]:
    """The paths of each mount in requests of bounded size; the mountpoint goes along."""
    from ossfs_py.control.client import ControlClient

    if not found.mounts and found.missing:
        path, reason = next(iter(found.missing.items()))
        raise EnvironmentProblemError(_about(path, reason))
    for mountpoint, files in found.mounts.items():
        with ControlClient.of(files.mount) as client:
            for batch in _split(files):
                yield client, str(mountpoint), batch


def _split(files: "Files") -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in files.sizes:
        batch.append(path)
        size += len(path)
        if len(batch) == _BATCH_FILES or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _missing(prefix: str, result: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}/{entry['path']}": entry["reason"] for entry in result.get("missing", [])}


def _tell_missing(missing: Mapping[str, str]) -> None:
    for path, reason in list(missing.items())[:_SHOWN_MISSING]:
        say(f"ossfs-py: {_about(path, reason)}", err=True)
    if len(missing) > _SHOWN_MISSING:
        say(f"ossfs-py: and {len(missing) - _SHOWN_MISSING} more", err=True)


def _about(path: str, reason: str) -> str:
    return reason if reason.startswith(path) else f"{path}: {reason}"


def _tell_json(report: Report) -> None:
    click.echo(json.dumps(report, indent=1))
