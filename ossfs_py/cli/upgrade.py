"""``ossfs-py upgrade``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.options import SettingsCommand, setting_options
from ossfs_py.cli.terminal import say
from ossfs_py.config import Settings
from ossfs_py.config.changeable import CHANGEABLE, as_option
from ossfs_py.config.values import absolute_path
from ossfs_py.errors import EnvironmentProblemError, UsageError

_SWITCH_SECONDS = 60.0
"""The old daemon has to be gone first. Without a closer (``cli/closer.py``), with 4 GiB in a
temporary file, and the disk busy, the kernel took 11 s to end it."""

_HELP = """Let a new version of ossfs-py, or other options, take over the mount at MOUNTPOINT.

The mount must have been made with --restarts. A new daemon is started from the program that is on
disk now. It reads the options of the mount, its configuration file and its credentials again. When
it is ready, the running daemon ends. Open files stay open, and programs wait for less than a
second. If the new daemon cannot start, the running one continues.

Options given here overrule those of the mount until it is unmounted.
"""

_EPILOG = """\b
Examples:
  ossfs-py upgrade /mnt/models                        (after installing a new version)
  ossfs-py upgrade /mnt/models --metadata-ttl 5m --concurrency 32

\b
Exit codes: 0 upgraded, 1 it could not be, 2 wrong usage.
"""


class _UpgradeCommand(SettingsCommand):
    """Takes the options of a mount; those that cannot change are refused, and not shown."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for option in setting_options():
            option.hidden = option.name not in CHANGEABLE
            self.params.append(option)


@click.command(cls=_UpgradeCommand, help=_HELP, epilog=_EPILOG, options_metavar="[OPTIONS]")
@click.argument("mountpoint", metavar="MOUNTPOINT")
def upgrade(mountpoint: str, **given: str | bool | None) -> int:
    changes = {name: value for name, value in given.items() if value is not None}
    fixed = [as_option(name) for name in changes if name not in CHANGEABLE]
    if fixed:
        raise UsageError(
            f"{' and '.join(fixed)} cannot change while it is mounted: unmount, and mount again"
        )
    from ossfs_py.cli.background import wait_for_answer
    from ossfs_py.control.client import ControlClient, mount_of

    entry, below = mount_of(Path(mountpoint))
    if below:
        raise EnvironmentProblemError(f"{mountpoint} is not a mountpoint")
    told: list[Mapping[str, Any]] = []
    with ControlClient.of(entry) as client:
        try:
            client.call("upgrade", {"changes": _absolute(changes)}, told.append)
        except EnvironmentProblemError:
            # Having told who goes on, the daemon ends without another word.
            if not told:
                raise
    wait_for_answer(entry.mountpoint, _SWITCH_SECONDS)
    with ControlClient.of(entry) as client:
        serving = client.mount.pid
    if serving != told[0]["pid"]:
        raise EnvironmentProblemError(
            f"the new daemon died while it took over the mount; its log says why. Process"
            f" {serving} serves the mount"
        )
    say(f"{mountpoint}: version {told[0]['version']} serves it, as process {serving}")
    return 0


def _absolute(changes: Mapping[str, str | bool]) -> dict[str, str | bool]:
    """The daemon works in another directory."""
    return {
        name: str(absolute_path(value)) if value and Settings.model_fields[name].is_path else value
        for name, value in changes.items()
    }
