"""``ossfs-py refresh``."""

import json
from pathlib import Path

import click

from ossfs_py.cli.terminal import say


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def refresh(path: str, as_json: bool) -> int:
    """Forget what the mount remembers of PATH and everything below it.

    Changes by other clients are then visible at once, without waiting for --metadata-ttl.
    """
    from ossfs_py.control.client import ControlClient, mount_of

    entry, below = mount_of(Path(path))
    with ControlClient.of(entry) as client:
        told = client.call("refresh", {"path": below})
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        gone = ", and it is gone from the bucket" if told["gone"] else ""
        entries = told["forgotten_entries"]
        say(f"{path}: forgot {entries:,} {'entry' if entries == 1 else 'entries'}{gone}")
    return 0
