"""``ossfs-py keeper``."""

import os
import signal
from pathlib import Path

import click

from ossfs_py.cli.kept import keep_to_ourselves
from ossfs_py.cli.terminal import say
from ossfs_py.errors import UsageError

_DEFAULT_WAIT = "60s"


@click.command(
    epilog="""\b
Examples:
  ossfs-py keeper --socket /run/ossfs-py-keeper/socket
  ossfs-py mount models /mnt/models --read-only --keeper /run/ossfs-py-keeper/socket

\b
Exit codes: 0 ended by a signal, 1 it cannot listen, 2 wrong usage.
"""
)
@click.option("--socket", "socket_path", metavar="PATH", required=True, help="Where to listen.")
@click.option(
    "--wait",
    metavar="DURATION",
    default=_DEFAULT_WAIT,
    show_default=True,
    help="How long programs wait for the next daemon before the mount is given up.",
)
def keeper(socket_path: str, wait: str) -> int:
    """Hold mounts while the containers that serve them are replaced.

    Mounts with --keeper PATH give it what the next daemon needs. When the container of such a mount
    ends, programs wait, and the next container takes the mount over. The keeper must outlive these
    containers: run it in a container of its own, or on the host.

    It keeps any number of mounts, of its own user and of root. Holding them needs no privilege. If
    it may unmount and sees the mountpoint, it unmounts what it gives up. When it ends, mounts that
    are served continue, and are given to the next keeper at the same path.
    """
    from ossfs_py.config.units import parse_duration
    from ossfs_py.host.nodekeeper import NodeKeeper, listening

    try:
        wait_seconds = parse_duration(wait)
    except ValueError as exc:
        raise UsageError(f"--wait: {exc}") from None
    keep_to_ourselves()
    node = NodeKeeper(wait_seconds, lambda text: say(f"ossfs-py: {text}", err=True))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.end())
    path = Path(os.path.abspath(socket_path))  # noqa: PTH100 (its links are the caller's)
    with listening(path) as listener:
        say(f"ossfs-py: keeping mounts at {path}", err=True)
        node.serve(listener)
    return 0
