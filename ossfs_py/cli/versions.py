"""``ossfs-py versions``."""

import json
from pathlib import Path

import click

from ossfs_py.cli.formatting import short_size, when
from ossfs_py.cli.terminal import console, printable, say


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def versions(path: str, as_json: bool) -> int:
    """Show the versions and deletions of the file PATH, the newest first: when, how large, and
    by whom (if it was written with --record-writer). PATH may be a deleted file.

    The bucket must keep versions. 'ossfs-py restore' brings one back.
    """
    from rich.table import Table

    from ossfs_py.control.client import ControlClient, mount_of

    entry, below = mount_of(Path(path))
    with ControlClient.of(entry) as client:
        told = client.call("versions", {"path": below})
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("TIME", "SIZE", "ETAG", "CLASS", "WRITTEN BY", "VERSION"):
        table.add_column(name, no_wrap=True, justify="right" if name == "SIZE" else "left")
    for row in told["versions"]:
        if row["deleted"]:
            cells = ("deleted", "", "", "", row["version_id"])
        else:
            cells = (
                short_size(row["bytes"]),
                row["etag"],
                row["storage_class"] or "",
                row["writer"] or "",
                row["version_id"],
            )
        table.add_row(when(row["time"]), *(printable(cell) for cell in cells))
    # The id at the end is to be copied.
    console(whole_lines=True, on_terminals=True).print(table, crop=False)
    if told["more"]:
        say(f"and {told['more']} older ones")
    return 0
