"""``ossfs-py cache``: show, verify and clear the disk cache behind a mount."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.formatting import short_size
from ossfs_py.cli.terminal import console, say
from ossfs_py.config.units import counted

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_MOUNT = click.argument("mountpoint", metavar="MOUNTPOINT")


@click.group()
def cache() -> None:
    """Manage the disk cache of a mount with --data-path cache.

    Several mounts may share one cache directory: the commands apply to the whole directory.
    """


@cache.command()
@_MOUNT
@_AS_JSON
def show(mountpoint: str, as_json: bool) -> int:
    """Show size, files and hit ratio."""
    shown = _ask(mountpoint, "cache.show")
    if as_json:
        click.echo(json.dumps(shown, indent=1))
        return 0
    limit, ratio = shown["limit_bytes"], shown["hit_ratio"]
    rows = {
        "Size": short_size(shown["used_bytes"]),
        "Limit": "what --min-free leaves" if limit is None else short_size(limit),
        "Files": str(shown["files"]),
        "Blocks": str(shown["blocks"]),
        "Read from disk": short_size(shown["hit_bytes"]),
        "Fetched": short_size(shown["miss_bytes"]),
        "Hit ratio": "no reads yet" if ratio is None else f"{ratio:.1%}",
    }
    for name, value in rows.items():
        say(f"{name:<16}{value}")
    return 0


@cache.command()
@_MOUNT
@_AS_JSON
def verify(mountpoint: str, as_json: bool) -> int:
    """Read and check every block. Damaged blocks are dropped, and fetched again when needed.

    Exit code 1 means that something was damaged.
    """
    from rich.progress import Progress

    screen = console(stderr=True)
    with Progress(
        console=screen, transient=True, disable=as_json or not screen.is_terminal
    ) as progress:
        task = progress.add_task("Checking", total=None)

        def on_progress(state: Mapping[str, Any]) -> None:
            total = state["files_total"] or None
            progress.update(task, completed=state["files_done"], total=total)

        report = _ask(mountpoint, "cache.verify", on_progress)
    damaged = report["damaged_blocks"] + report["damaged_files"]
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        outcome = (
            f"damaged and dropped: {counted(report['damaged_blocks'], 'block')}"
            f" and {counted(report['damaged_files'], 'file')}"
            if damaged
            else "all of them right"
        )
        say(f"{counted(report['files'], 'file')}, {counted(report['blocks'], 'block')}: {outcome}.")
    return 1 if damaged else 0


@cache.command()
@_MOUNT
@_AS_JSON
def clear(mountpoint: str, as_json: bool) -> int:
    """Remove all blocks of files that are not open."""
    kept = _ask(mountpoint, "cache.clear")["kept_bytes"]
    if as_json:
        click.echo(json.dumps({"kept_bytes": kept}))
    else:
        say(f"Cleared, except for {short_size(kept)} in use." if kept else "The cache is empty.")
    return 0


def _ask(mountpoint: str, command: str, on_progress: Any = None) -> dict[str, Any]:
    from ossfs_py.control.client import ControlClient, mount_of

    with ControlClient.of(mount_of(Path(mountpoint))[0]) as client:
        return client.call(command, {}, on_progress)
