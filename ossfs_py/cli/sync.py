"""``ossfs-py sync``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.terminal import console
from ossfs_py.config.units import counted
from ossfs_py.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  cp checkpoint.pt /mnt/models/ && ossfs-py sync /mnt/models

\b
Exit codes: 0 everything is in the bucket, 1 something is not, 2 wrong usage.
"""
)
@click.argument("path", metavar="MOUNTPOINT")
def sync(path: str) -> None:
    """Wait until everything written to the mount at MOUNTPOINT is in the bucket.

    This includes files that are still open. Without --write-back, files that are closed are in
    the bucket already.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from ossfs_py.control.client import ControlClient, mount_of

    if not path:
        raise UsageError("MOUNTPOINT: must not be empty")
    entry, _ = mount_of(Path(path))
    screen = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with (
        ControlClient.of(entry) as client,
        Progress(
            *columns, console=screen, transient=True, disable=not screen.is_terminal
        ) as progress,
    ):
        task = progress.add_task("uploading")

        def show(told: Mapping[str, Any]) -> None:
            progress.update(task, description=f"{counted(told['pending_files'], 'file')} to upload")

        client.call("sync", on_progress=show)
