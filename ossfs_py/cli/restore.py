"""``ossfs-py restore``."""

import json
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.formatting import short_size, when
from ossfs_py.cli.moments import Moment
from ossfs_py.cli.terminal import say
from ossfs_py.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  ossfs-py restore /mnt/models/config.json
  ossfs-py restore /mnt/models/config.json --at 2026-11-20T10:00Z
"""
)
@click.argument("path", metavar="PATH")
@click.option(
    "--version", "version", metavar="ID", help="The version to restore, as 'versions' shows it."
)
@click.option(
    "--at",
    "at_ns",
    type=Moment(),
    metavar="TIME",
    help="Restore the file as it was at this time (3d: days ago).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def restore(path: str, version: str | None, at_ns: int | None, as_json: bool) -> int:
    """Restore the file PATH: by default, as it was before its last change or its deletion.

    The store copies the older version over the current one, which remains as a version.
    """
    if version is not None and at_ns is not None:
        raise UsageError("--version and --at cannot be used together")
    from ossfs_py.control.client import ControlClient, mount_of

    arguments: dict[str, Any] = {"version": version or "", "at_ns": at_ns or 0}
    entry, below = mount_of(Path(path))
    with ControlClient.of(entry) as client:
        told = client.call("restore", {"path": below, **arguments})
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return 0
    outcome = "is again" if told["restored"] else "is already"
    say(f"{path} {outcome} what it was at {when(told['time'])}, {short_size(told['bytes'])}")
    return 0
