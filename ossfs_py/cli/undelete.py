"""``ossfs-py undelete``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.formatting import short_size, when
from ossfs_py.cli.moments import Moment
from ossfs_py.cli.terminal import console, say
from ossfs_py.config.units import counted


@click.command(
    epilog="""\b
Examples:
  ossfs-py undelete --dry-run --since 1h /mnt/models/llama-70b
  ossfs-py undelete --since 1h /mnt/models/llama-70b

\b
Exit codes: 0 all is back, 1 something could not be brought back, 2 wrong usage.
"""
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--since",
    "since_ns",
    type=Moment(),
    metavar="TIME",
    help="Only files that were deleted since this time.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would come back.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def undelete(paths: tuple[str, ...], since_ns: int | None, dry_run: bool, as_json: bool) -> int:
    """Bring back deleted files: PATH itself, and everything below it if it was a directory.

    They come back exactly as they were. Files that were moved away count as deleted, too: use
    --since and --dry-run to select. Files that are back already are skipped, so run an
    interrupted command again to continue.
    """
    from ossfs_py.control.client import ControlClient, mount_of

    rows: list[dict[str, Any]] = []
    totals = {"files": 0, "bytes": 0, "without_version": 0}
    failed: dict[str, str] = {}
    screen = console(stderr=True)
    with screen.status("") as status:
        for path in paths:
            entry, below = mount_of(Path(path))

            def on_progress(state: Mapping[str, Any], root: Path = entry.mountpoint) -> None:
                found = [{**row, "path": f"{root}/{row['path']}"} for row in state["files"]]
                rows.extend(found if dry_run or as_json else [])
                status.update(counted(totals["files"] + state["done"], "file"))

            arguments = {"paths": [below], "since_ns": since_ns or 0, "dry_run": dry_run}
            with ControlClient.of(entry) as client:
                told = client.call("undelete", arguments, on_progress)
            failed |= told["failed"]
            for name in totals:
                totals[name] += told[name]
    if as_json:
        outcome = {**totals, "failed": failed, "dry_run": dry_run, "paths": rows}
        click.echo(json.dumps(outcome, indent=1))
        return 1 if failed else 0
    for row in rows:
        say(f"{when(row['deleted'])}  {short_size(row['bytes']):>10}  {row['path']}")
    for key, why in failed.items():
        say(f"ossfs-py: {key}: {why}", err=True)
    back = "to bring back" if dry_run else "brought back"
    say(f"{counted(totals['files'], 'file')} ({short_size(totals['bytes'])}) {back}")
    if totals["without_version"]:
        lost = counted(totals["without_version"], "name")
        say(f"{lost} cannot come back: no version is left")
    elif not (totals["files"] or failed):
        say("Nothing there is deleted, or the bucket keeps no versions: see 'ossfs-py versions'.")
    return 1 if failed else 0
