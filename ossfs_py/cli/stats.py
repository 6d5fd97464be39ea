"""``ossfs-py stats``."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ossfs_py.cli.bottleneck import bottleneck
from ossfs_py.cli.mount_metrics import MountMetrics, sections
from ossfs_py.cli.terminal import console, printable

if TYPE_CHECKING:
    from rich.console import Group

_PERIOD_SECONDS = 1.0


@click.command()
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option("--json", "as_json", is_flag=True, help="Print every metric once, as JSON.")
@click.option("--once", is_flag=True, help="Print one table instead of a live one.")
def stats(mountpoint: str, as_json: bool, once: bool) -> int:
    """Show what the mount at MOUNTPOINT does: bytes, requests, errors, memory, cache.

    On a terminal, the table is updated live, with rates per second, until Ctrl-C. While
    programs read, the line below the title says what they wait for, and which option helps.
    """
    from rich.live import Live

    from ossfs_py.control.client import ControlClient, mount_of

    with ControlClient.of(mount_of(Path(mountpoint))[0]) as client:
        told = client.call("stats")
        if as_json:
            click.echo(json.dumps(told, indent=1))
            return 0
        now, looked_at = MountMetrics(told), time.monotonic()
        if once or not sys.stdout.isatty():
            console(soft_wrap=True).print(_screen(now, None, 0.0))
            return 0
        try:
            with Live(_screen(now, None, 0.0), screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(_PERIOD_SECONDS)
                    before, began = now, looked_at
                    now, looked_at = MountMetrics(client.call("stats")), time.monotonic()
                    live.update(_screen(now, before, looked_at - began), refresh=True)
        except KeyboardInterrupt:
            return 0


def _screen(now: MountMetrics, before: MountMetrics | None, seconds: float) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table] = [
        Text(printable(f"{now.source} ({now.data_path} data path)"), "bold")
    ]
    if before is not None and (why := bottleneck(now, before, seconds)):
        parts.append(Text(why, "bold yellow"))
    for section in sections(now, before, seconds):
        table = Table(box=None, pad_edge=False, header_style="bold cyan")
        for number, heading in enumerate(section.headings):
            left = number == 0 or not heading
            table.add_column(heading, justify="left" if left else "right", no_wrap=True)
        for row in section.rows:
            table.add_row(*(Text(printable(text)) for text in row))
        parts += [Text(""), table]
    return Group(*parts)
