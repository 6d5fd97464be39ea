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
@click.option("--since", "since_ns", type=Moment(), metavar="TIME", help="Deleted since then only.")
@click.option("--dry-run", is_flag=True, help="Only tell what would come back.")
@click.option("--json", "as_json", is_flag=True, help="Tell the outcome as JSON.")
def undelete(paths: tuple[str, ...], since_ns: int | None, dry_run: bool, as_json: bool) -> int:
    """Bring back files that were deleted: PATH itself, and all below it if it was a directory.

    They are exactly what they were. What was moved away was deleted, too: --since and --dry-run
    help to tell. What is back already is passed over, so give the command again if it was
    broken off.
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
                status.update(f"{totals['files'] + state['done']} files")

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
    back = "would come back" if dry_run else "are back"
    say(f"{counted(totals['files'], 'file')} ({short_size(totals['bytes'])}) {back}")
    if totals["without_version"]:
        lost = counted(totals["without_version"], "name")
        say(f"of {lost} no version is left: they cannot come back")
    return 1 if failed else 0
