"""``umount.fuse.ossfs-py``, the helper that umount(8) and systemd call.

It returns when everything is uploaded and the daemon is gone. umount(8) alone would return while
uploads run, and a machine that shuts down would cut them off.
"""

import sys
from typing import NoReturn

import click

from ossfs_py.cli.helpers import run_helper
from ossfs_py.cli.umount import DEFAULT_TIMEOUT_SECONDS, unmount_and_wait
from ossfs_py.errors import EnvironmentProblemError

NAME = "umount.ossfs-py"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("target", metavar="MOUNTPOINT")
@click.option("-l", "lazy", is_flag=True, help="Hide it now; it ends with its last user.")
@click.option("-f", "force", is_flag=True, help="Do not wait for the store; keep unsaved data.")
@click.option("-n", "_no_mtab", is_flag=True, help="Ignored: there is no mtab.")
@click.option("-r", "_read_only", is_flag=True, help="Ignored.")
@click.option("-v", "_verbose", is_flag=True, help="Ignored.")
@click.option("-t", "_type", metavar="TYPE", help="Ignored: there is one type.")
@click.option("-N", "namespace", metavar="NAMESPACE", help="Refused.")
def umount_helper(
    target: str, lazy: bool, force: bool, namespace: str | None, **_ignored: object
) -> int:
    """Unmount for umount(8). People call 'umount' or 'ossfs-py umount'."""
    if namespace is not None:
        raise EnvironmentProblemError("it cannot unmount in another namespace")
    unmount_and_wait(target, lazy=lazy, force=force, timeout_seconds=DEFAULT_TIMEOUT_SECONDS)
    return 0


def main(argv: list[str] | None = None) -> NoReturn:
    """Run and exit as umount(8) expects it of a helper."""
    sys.exit(run_helper(umount_helper, NAME, sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
