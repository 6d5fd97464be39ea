"""``ossfs-py umount``."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ossfs_py.cli.terminal import say
from ossfs_py.config.units import format_duration, parse_duration
from ossfs_py.errors import EnvironmentProblemError, UsageError

if TYPE_CHECKING:
    from ossfs_py.host.running import FoundDaemon

DEFAULT_TIMEOUT_SECONDS = 600.0
"""A checkpoint of some 60 GB leaves at 100 MB/s in this time."""
_MAX_USERS_SHOWN = 3
_LOOK_SECONDS = 2.0
"""A daemon with nothing to upload has ended by then. After that, look for copies of the mount."""


def _timeout(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as exc:
        raise UsageError(f"--timeout: {exc}") from exc


@click.command(
    epilog="""\b
Examples:
  ossfs-py umount /mnt/models
  ossfs-py umount --lazy /mnt/models     (programs may finish with their open files)
"""
)
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option(
    "--lazy",
    is_flag=True,
    help="Hide the mount now; it ends when the last program has closed its files.",
)
@click.option(
    "--force",
    is_flag=True,
    help="End the daemon without waiting for the store; unsaved data stays in the state directory.",
)
@click.option(
    "--timeout",
    default=format_duration(DEFAULT_TIMEOUT_SECONDS),
    metavar="DURATION",
    callback=_timeout,
    help="Maximum wait for uploads.",
    show_default=True,
)
def umount(mountpoint: str, lazy: bool, force: bool, timeout: float) -> None:
    """Unmount MOUNTPOINT, and wait until its daemon has uploaded everything and has ended."""
    unmount_and_wait(mountpoint, lazy=lazy, force=force, timeout_seconds=timeout)


def unmount_and_wait(mountpoint: str, *, lazy: bool, force: bool, timeout_seconds: float) -> None:
    """Unmount; return when the daemon is gone, lazily when the mount is out of sight.

    Raises:
        UserError: it is no mount of ours, is busy, its daemon does not end in time, or it left
            unsaved files.
    """
    from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, BusyMountError, real_path, unmount
    from ossfs_py.host.running import find_daemon
    from ossfs_py.host.standing import Standing, look_at

    if not mountpoint:
        raise UsageError("MOUNTPOINT: must not be empty")
    path = real_path(Path(os.path.abspath(mountpoint)))  # noqa: PTH100 (no resolve: may hang)
    seen = look_at(path)
    entry = seen.entry
    if entry is None:
        raise EnvironmentProblemError(f"{path} is not a mountpoint")
    if entry.filesystem_type != FILESYSTEM_TYPE:
        raise EnvironmentProblemError(
            f"{path} is not a mount of ossfs-py: {entry.source} is mounted there"
            f" ({entry.filesystem_type})"
        )
    daemon = find_daemon(path, entry.owner)
    if force and daemon is not None:
        daemon.hurry(timeout_seconds)
        if look_at(path).standing is Standing.FREE:
            _tell_unsaved(path, daemon.mount.state_directory)
            return
    try:
        unmount(path, lazy=lazy or force, force=force)
    except BusyMountError as exc:
        raise EnvironmentProblemError(
            f"{path} is busy{_users(path)}: end what uses it, or hide it now with --lazy"
        ) from exc
    if lazy:
        return
    if daemon is not None:
        _wait_for_end(path, daemon, entry.device, timeout_seconds)
        _tell_unsaved(path, daemon.mount.state_directory)
    elif seen.is_alive:
        say(
            f"ossfs-py: {path} is unmounted here; its daemon, which runs in another container,"
            " uploads what is not saved yet and then ends",
            err=True,
        )


def _wait_for_end(path: Path, daemon: "FoundDaemon", device: str, timeout_seconds: float) -> None:
    """Return when the daemon is gone.

    Raises:
        EnvironmentProblemError: it is still uploading, or everything is uploaded and it serves on
            because somebody has a copy of the mount.
    """
    from ossfs_py.control.client import ControlClient
    from ossfs_py.host.holders import holders_of

    deadline = time.monotonic() + timeout_seconds
    while not daemon.wait_gone(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
        pid = daemon.mount.pid
        if holders := holders_of(device, pid):
            # Unsaved files are uploaded all the same.
            ControlClient(daemon).call("sync")
            # Those that were about to go have gone meanwhile.
            if holders := [one for one in holders_of(device, pid) if one in holders]:
                others = f" and {len(holders) - 1} more" if holders[1:] else ""
                raise EnvironmentProblemError(
                    f"{path} is unmounted here and everything is uploaded, but its daemon"
                    f" (process {pid}) still serves {holders[0]}{others}"
                )
        if time.monotonic() >= deadline:
            raise EnvironmentProblemError(
                f"{path} is unmounted, but its daemon (process {pid}) is still uploading"
                f" after {format_duration(timeout_seconds)}"
            )


def _tell_unsaved(path: Path, state_directory: str) -> None:
    """Raises EnvironmentProblemError if the mount has left something unsaved behind."""
    from ossfs_py.writing.leftovers import count_unsaved, sentence_about_unsaved

    directory = Path(state_directory)
    count = count_unsaved(directory, ended=True) if state_directory else 0
    if count:
        told = sentence_about_unsaved(directory, count)
        raise EnvironmentProblemError(f"{path} is unmounted, but {told}")


def _users(path: Path) -> str:
    """The processes that keep a mount busy, as far as this user may see them."""
    users = [
        f"{_command(process)} ({process.name})"
        for process in Path("/proc").glob("[0-9]*")
        if process.name != str(os.getpid())  # started in the mount, it stands there itself
        and any(_leads_below(link, path) for link in _links(process))
    ]
    if not users:
        return ""
    shown = ", ".join(users[:_MAX_USERS_SHOWN]) + (
        " and others" if users[_MAX_USERS_SHOWN:] else ""
    )
    return f", used by {shown}"


def _links(process: Path) -> list[Path]:
    try:
        return [process / "cwd", process / "root", *(process / "fd").iterdir()]
    except OSError:
        return []


def _leads_below(link: Path, path: Path) -> bool:
    try:
        return link.readlink().is_relative_to(path)
    except OSError:
        return False


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a program"
