"""``ossfs-py trash``: list, bring back and empty what a mount with --trash has kept."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.formatting import short_size, when
from ossfs_py.cli.moments import Moment
from ossfs_py.cli.terminal import console, printable, say
from ossfs_py.config.units import counted, parse_duration
from ossfs_py.errors import UsageError

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
_PATH = click.argument("path", metavar="PATH")


@click.group(
    epilog="""\b
Examples:
  ossfs-py trash list /mnt/models
  ossfs-py trash restore --since 1h /mnt/models/llama-70b
  ossfs-py trash empty --older-than 7d /mnt/models
"""
)
def trash() -> None:
    """List, restore or delete the copies of deleted and overwritten files (mounts with --trash).

    PATH is a mountpoint, or a file or directory below it. It may have been deleted. A directory
    stands for everything that was in it.
    """


@trash.command(name="list")
@_PATH
@click.option(
    "--since", "since_ns", type=Moment(), metavar="TIME", help="Only copies made since this time."
)
@_AS_JSON
def list_kept(path: str, since_ns: int | None, as_json: bool) -> int:
    """Show the copies of PATH and of everything below it."""
    from rich.table import Table

    rows, told = _ask("list", path, {"since_ns": since_ns or 0})
    if as_json:
        click.echo(json.dumps({**told, "paths": rows}, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("REMOVED", "SIZE", "ID", "PATH"):
        table.add_column(name, no_wrap=True, justify="right" if name == "SIZE" else "left")
    for row in rows:
        cells = (short_size(row["bytes"]), row["id"], printable(row["path"]))
        table.add_row(when(row["removed"]), *cells)
    if rows:
        console(whole_lines=True).print(table)
    say(f"{counted(told['files'], 'file')} ({short_size(told['bytes'])}) kept")
    return 0


@trash.command(
    epilog="""\b
Exit codes: 0 all is back, 1 something could not be brought back, 2 wrong usage.
"""
)
@_PATH
@click.option(
    "--since", "since_ns", type=Moment(), metavar="TIME", help="Only copies made since this time."
)
@click.option(
    "--id",
    "ident",
    metavar="ID",
    default="",
    help="Restore this copy (an ID that 'trash list' shows).",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist; they are copied first.")
@_DRY_RUN
@_AS_JSON
def restore(
    path: str, since_ns: int | None, ident: str, overwrite: bool, dry_run: bool, as_json: bool
) -> int:
    """Bring back PATH and everything below it: the latest copy of each file.

    The store copies the files back, metadata included. Files that exist are skipped, so run an
    interrupted command again to continue.
    """
    arguments = {
        "since_ns": since_ns or 0,
        "ident": ident,
        "overwrite": overwrite,
        "dry_run": dry_run,
    }
    rows, told = _ask("restore", path, arguments)
    if as_json:
        click.echo(json.dumps({**told, "dry_run": dry_run, "paths": rows}, indent=1))
        return 1 if told["failed"] else 0
    _tell(rows if dry_run else [], told)
    passed = f", {told['there_already']:,} there already" if told["there_already"] else ""
    back = "would come back" if dry_run else "back"
    say(f"{counted(told['files'], 'file')} ({short_size(told['bytes'])}) {back}{passed}")
    if not (told["files"] or told["failed"] or passed):
        say("The trash has no such copy: see 'ossfs-py trash list'.")
    return 1 if told["failed"] else 0


def _duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float:
    try:
        return 0.0 if value is None else parse_duration(value)
    except ValueError as exc:
        raise UsageError(f"--older-than: {exc}") from exc


@trash.command()
@_PATH
@click.option(
    "--older-than",
    "age_seconds",
    metavar="TIME",
    callback=_duration,
    help="Only copies of files removed longer ago than this, such as 7d.",
)
@_DRY_RUN
@_AS_JSON
def empty(path: str, age_seconds: float, dry_run: bool, as_json: bool) -> int:
    """Delete the copies of PATH and of everything below it for good."""
    until_ns = time.time_ns() - round(age_seconds * 1e9) if age_seconds else 0
    rows, told = _ask("empty", path, {"until_ns": until_ns, "dry_run": dry_run})
    if as_json:
        click.echo(json.dumps({**told, "dry_run": dry_run, "paths": rows}, indent=1))
        return 1 if told["failed"] else 0
    _tell(rows if dry_run else [], told)
    gone = "would be deleted" if dry_run else "deleted"
    say(f"{counted(told['files'], 'kept file')} ({short_size(told['bytes'])}) {gone}")
    return 1 if told["failed"] else 0


def _tell(rows: list[dict[str, Any]], told: Mapping[str, Any]) -> None:
    for row in rows:
        say(f"{when(row['removed'])}  {short_size(row['bytes']):>10}  {row['path']}")
    for key, why in told["failed"].items():
        say(f"ossfs-py: {key}: {why}", err=True)


def _ask(
    command: str, path: str, arguments: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """The files that the mount reported, and the outcome."""
    from ossfs_py.control.client import ControlClient, mount_of

    rows: list[dict[str, Any]] = []
    entry, below = mount_of(Path(path))
    with console(stderr=True).status("") as status:
        report = _reporting(rows, f"{entry.mountpoint}/", status.update)
        with ControlClient.of(entry) as client:
            told = client.call(f"trash.{command}", {"path": below, **arguments}, report)
    return rows, told


def _reporting(
    rows: list[dict[str, Any]], root: str, show: Callable[[str], None]
) -> Callable[[Mapping[str, Any]], None]:
    def on_progress(state: Mapping[str, Any]) -> None:
        rows.extend({**row, "path": root + row["path"]} for row in state["files"])
        show(f"{state['done']:,} files")

    return on_progress
