"""``ossfs-py log-level``."""

import json
from pathlib import Path

import click

from ossfs_py.errors import UsageError
from ossfs_py.telemetry.loglevels import AREAS, LogLevels


def _levels(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            LogLevels().changed(value)
    except ValueError as exc:
        raise UsageError(f"LEVEL: {exc}") from exc
    return value


@click.command(
    epilog=f"""\b
Areas: {", ".join(AREAS)}
Examples:
  ossfs-py log-level /mnt/models                      (show)
  ossfs-py log-level /mnt/models store=debug          (one area, the others as they are)
  ossfs-py log-level /mnt/models info                 (everything)
"""
)
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.argument("levels", required=False, metavar="[LEVEL][,AREA=LEVEL]", callback=_levels)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def log_level(mountpoint: str, levels: str | None, as_json: bool) -> int:
    """Show or change what the mount at MOUNTPOINT logs, while it runs.

    A change lasts until the next SIGHUP, which restores the configured levels.
    """
    from ossfs_py.control.client import ControlClient, mount_of

    with ControlClient.of(mount_of(Path(mountpoint))[0]) as client:
        told = client.call("log-level", {"levels": levels or ""})
    click.echo(json.dumps(told, indent=1) if as_json else str(LogLevels(**told)))
    return 0
