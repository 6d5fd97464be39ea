"""``ossfs-py cleanup``."""

import logging
import os
from pathlib import Path

import click

from ossfs_py.config import CommandLine, load

_KEPT_SECONDS = 0.5
"""A dead mount says so at once. A silent one waits for its next daemon, which waits for this
command."""


@click.command(
    epilog="""\b
Examples:
  ossfs-py cleanup /mnt/models
  ossfs-py cleanup --config /etc/ossfs-py/models.toml     (as the systemd unit does)
"""
)
@click.argument("mountpoint", required=False, metavar="[MOUNTPOINT]")
@click.option("--config", metavar="FILE", help="TOML file that names the mountpoint.")
def cleanup(mountpoint: str | None, config: str | None) -> None:
    """Remove the dead mount that a killed daemon has left at MOUNTPOINT.

    A mount that works is left alone; without a mount there is nothing to do. Unsaved data is
    kept: the next mount and 'ossfs-py recover' find it.
    """
    from ossfs_py.host.mountpoint import real_path
    from ossfs_py.host.preparing import clear_dead_mounts
    from ossfs_py.host.standing import ANSWER_SECONDS

    logging.basicConfig(format="ossfs-py: %(message)s")
    patience_seconds = ANSWER_SECONDS
    if mountpoint:
        path = Path(os.path.abspath(mountpoint))  # noqa: PTH100 (no resolve: it may hang)
    else:
        settings = load(CommandLine({}, (), config)).settings
        path = settings.mountpoint
        if settings.keeper is not None:
            patience_seconds = _KEPT_SECONDS
    clear_dead_mounts(real_path(path), patience_seconds=patience_seconds)
