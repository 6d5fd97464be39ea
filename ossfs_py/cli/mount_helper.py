"""``mount.fuse.ossfs-py``: what mount(8) and systemd call for fstab and ``-t fuse.ossfs-py``.

mount(8) hands over ``SOURCE TARGET [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]``. The options
go through the one settings model. A remount changes what the kernel itself enforces.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click

from ossfs_py.cli.helpers import run_helper, tell
from ossfs_py.cli.mount import mount_as_told
from ossfs_py.config import CommandLine, load
from ossfs_py.config.mount_options import split_options
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, SUBTYPE

NAME = "mount.ossfs-py"
_MOUNT_SECONDS = 30.0
_REMOUNTABLE = frozenset(
    (
        *("ro", "rw", "exec", "noexec"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime"),
    )
)
"""Options that the kernel changes on a mount without asking its daemon."""
_ALWAYS = ("nosuid", "nodev")
"""A remount sets all restrictions again; those that it does not name are dropped."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="BUCKET[/PREFIX]")
@click.argument("target", metavar="MOUNTPOINT")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="As in fstab.")
@click.option("-s", "sloppy", is_flag=True, help="Only warn of options that do not exist.")
@click.option("-f", "fake", is_flag=True, help="Check the options and mount nothing.")
@click.option("-n", "_no_mtab", is_flag=True, help="Ignored: there is no mtab.")
@click.option("-v", "_verbose", is_flag=True, help="Ignored.")
@click.option("-t", "_type", metavar="TYPE", help="Ignored: there is one type.")
@click.option("-N", "namespace", metavar="NAMESPACE", help="Refused.")
def mount_helper(
    source: str,
    target: str,
    options: tuple[str, ...],
    sloppy: bool,
    fake: bool,
    namespace: str | None,
    **_ignored: object,
) -> int:
    """Mount a bucket for mount(8). People call 'mount -t fuse.ossfs-py' or 'ossfs-py mount'."""
    if namespace is not None:
        raise EnvironmentProblemError("it cannot mount in another namespace")
    words = [word for text in options for word in split_options(text)]
    if "remount" in words:
        return _remount(Path(target), remount_words(words), fake)
    line = CommandLine({"bucket": source, "mountpoint": target}, options, sloppy=sloppy)
    if fake:
        load(line)
        return 0
    code = mount_as_told(line, lambda warning: tell(NAME, f"warning: {warning}"))
    if code == 0 and os.geteuid() == 0:
        _name_umount_helper(source, target)
    return code


def remount_words(words: list[str]) -> list[str]:
    """The options of a remount that go to the kernel."""
    return [word for word in words if word in _REMOUNTABLE]


def _name_umount_helper(source: str, target: str) -> None:
    """Make umount(8) call our helper, which waits for uploads.

    It takes a FUSE mount for the type "fuse", whose helper would be everybody's, unless its own
    table names another. A dry run of mount(8) writes that table and nothing else.
    """
    words = ["-f", "-i", "-t", FILESYSTEM_TYPE, "-o", f"uhelper={SUBTYPE}", "--", source, target]
    done = subprocess.run(
        ["mount", *words], capture_output=True, text=True, check=False, timeout=_MOUNT_SECONDS
    )
    if done.returncode:
        tell(NAME, f"warning: umount will not wait for uploads: {done.stderr.strip()}")


def _remount(target: Path, words: list[str], fake: bool) -> int:
    """Pass on what the kernel can change; for the rest the daemon would have to be another one.

    fstab's own options come along on every remount, so they are no reason to refuse it.
    """
    from ossfs_py.control.client import ControlClient, mount_of

    entry, below = mount_of(target)
    if below:
        raise EnvironmentProblemError(f"{target} is not a mountpoint")
    if words and [word for word in words if word in ("ro", "rw")][-1:] == ["rw"]:
        with ControlClient.of(entry) as client:
            if client.call("state")["read_only"]:
                raise EnvironmentProblemError(
                    f"{target} was mounted read-only: unmount it and mount it again"
                )
    if fake:
        return 0
    command = [
        "mount",
        "-i",
        "-n",
        "-o",
        ",".join(["remount", *words, *_ALWAYS]),
        str(entry.mountpoint),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_MOUNT_SECONDS
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise EnvironmentProblemError(f"cannot remount {target}: {reason.rpartition(': ')[2]}")
    return 0


def main(argv: list[str] | None = None) -> NoReturn:
    """Run and exit as mount(8) expects it of a helper."""
    sys.exit(run_helper(mount_helper, NAME, sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
