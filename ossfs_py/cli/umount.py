"""``ossfs-py umount``."""

import os
from pathlib import Path

import click

from ossfs_py.config.units import format_duration, parse_duration
from ossfs_py.errors import EnvironmentProblemError, UsageError

DEFAULT_TIMEOUT_SECONDS = 600.0
"""A checkpoint of some 60 GB leaves at 100 MB/s in this time."""
_MAX_USERS_SHOWN = 3


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
    "--lazy", is_flag=True, help="Take the mount out of sight now; it ends with its last user."
)
@click.option(
    "--force",
    is_flag=True,
    help="End the daemon without waiting for the store; unsaved data stays in its state directory.",
)
@click.option(
    "--timeout",
    default=format_duration(DEFAULT_TIMEOUT_SECONDS),
    metavar="DURATION",
    callback=_timeout,
    help="Longest wait for uploads to finish.",
    show_default=True,
)
def umount(mountpoint: str, lazy: bool, force: bool, timeout: float) -> None:
    """Unmount MOUNTPOINT and wait until its daemon has uploaded everything and is gone."""
    unmount_and_wait(mountpoint, lazy=lazy, force=force, timeout_seconds=timeout)


def unmount_and_wait(mountpoint: str, *, lazy: bool, force: bool, timeout_seconds: float) -> None:
    """Unmount; return when the daemon is gone, lazily when the mount is out of sight.

    Raises:
        UserError: it is no mount of ours, is busy, its daemon does not end in time, or it left
            unsaved files.
    """
    from ossfs_py.host.mountpoint import (
        FILESYSTEM_TYPE,
        THIS_MACHINE,
        BusyMountError,
        real_path,
        unmount,
    )
    from ossfs_py.host.running import find_daemon

    if not mountpoint:
        raise UsageError("MOUNTPOINT: must not be empty")
    path = real_path(Path(os.path.abspath(mountpoint)))  # noqa: PTH100 (no resolve: may hang)
    mounts = THIS_MACHINE.mounts_at(path)
    if not mounts:
        raise EnvironmentProblemError(f"{path} is not a mountpoint")
    if mounts[-1].filesystem_type != FILESYSTEM_TYPE:
        raise EnvironmentProblemError(
            f"{path} is no mount of ossfs-py: {mounts[-1].source} is mounted there"
            f" ({mounts[-1].filesystem_type})"
        )
    daemon = find_daemon(path, mounts[-1].owner)
    if force and daemon is not None:
        daemon.hurry(timeout_seconds)
        if not THIS_MACHINE.mounts_at(path):
            _tell_unsaved(path, daemon.mount.state_directory)
            return
    try:
        unmount(path, lazy=lazy or force, force=force)
    except BusyMountError as exc:
        raise EnvironmentProblemError(f"{path} is busy{_users(path)}: {exc}") from exc
    if daemon is not None and not lazy and not daemon.wait_gone(timeout_seconds):
        raise EnvironmentProblemError(
            f"{path} is unmounted, but its daemon (process {daemon.mount.pid}) is still uploading"
            f" after {format_duration(timeout_seconds)}"
        )
    if daemon is not None and not lazy:
        _tell_unsaved(path, daemon.mount.state_directory)


def _tell_unsaved(path: Path, state_directory: str) -> None:
    """Raises EnvironmentProblemError if the mount has left something unsaved behind."""
    from ossfs_py.writing.leftovers import count_unsaved, sentence_about_unsaved

    directory = Path(state_directory)
    count = count_unsaved(directory, ended=True) if state_directory else 0
    if count:
        told = sentence_about_unsaved(directory, count)
        raise EnvironmentProblemError(f"{path} is unmounted, but {told}")


def _users(path: Path) -> str:
    """Who keeps a mount busy, as far as this user may see it."""
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
