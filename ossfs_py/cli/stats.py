"""``ossfs-py stats``."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ossfs_py.cli.figures import short_size

if TYPE_CHECKING:
    from rich.table import Table

_PERIOD_SECONDS = 1.0


@click.command()
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option("--json", "as_json", is_flag=True, help="Every figure, once, as JSON.")
@click.option("--once", is_flag=True, help="One table instead of one that follows the mount.")
def stats(mountpoint: str, as_json: bool, once: bool) -> int:
    """Show what the mount at MOUNTPOINT has done so far: requests, bytes, errors, cache."""
    from rich.console import Console
    from rich.live import Live

    from ossfs_py.control_client import ControlClient, mount_of

    with ControlClient.of(mount_of(Path(mountpoint))[0]) as client:
        told = client.call("stats")
        if as_json:
            click.echo(json.dumps(told, indent=1))
        elif once or not sys.stdout.isatty():
            Console().print(_table(told))
        else:
            with Live(_table(told)) as live:
                while True:
                    time.sleep(_PERIOD_SECONDS)
                    live.update(_table(client.call("stats")))
    return 0


def _table(told: dict[str, Any]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{told['source']} ({told['data_path']})", box=None, title_justify="left")
    table.add_column("FIGURE")
    table.add_column("VALUE", justify="right")
    for wait in told["waiting"]:
        what = f"{wait['operation']} {wait['key']!r}, attempt {wait['attempt']}"
        row = escape(f"waiting: {what}, for {wait['waits_for']}")
        table.add_row(row, f"{wait['seconds']:.1f} s")
    for name, family in told["metrics"].items():
        if family["type"] == "histogram":
            continue
        for sample in family["samples"]:
            labels = " ".join(sample["labels"].values())
            value = sample["value"]
            shown = short_size(int(value)) if name.endswith("_bytes") else f"{value:g}"
            table.add_row(f"{family['help']} {labels}".strip(), shown)
    return table
