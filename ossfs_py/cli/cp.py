"""``ossfs-py cp``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ossfs_py.cli.formatting import short_size
from ossfs_py.cli.terminal import console, say
from ossfs_py.config.units import counted
from ossfs_py.errors import EnvironmentProblemError, UsageError


@click.command(
    epilog="""\b
Examples:
  ossfs-py cp -r /mnt/models/llama-70b /mnt/models/llama-70b-tuned
  ossfs-py cp -r /mnt/models/llama-70b /mnt/team/models

\b
Exit codes: 0 all is copied, 1 something could not be copied, 2 wrong usage.
"""
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-r", "recursive", is_flag=True, help="Copy a directory and everything below it.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def cp(source: str, target: str, recursive: bool, as_json: bool) -> int:
    """Copy SRC to DST, or into DST if that is a directory, without moving bytes over the
    network.

    Both must be in ossfs-py mounts of one bucket, or in one mount. The store makes the copies,
    many at a time, metadata included. Files that are copied already are skipped, so run an
    interrupted command again to continue.
    """
    from ossfs_py.control.client import ControlClient, mount_of

    if Path(source).is_dir() and not recursive:
        raise UsageError(f"{source} is a directory (use -r)")
    if Path(target).is_dir():
        target = str(Path(target) / Path(source).resolve().name)
    source_mount, source_below = mount_of(Path(source))
    target_mount, target_below = mount_of(Path(target))
    with ControlClient.of(source_mount) as client:
        from_place = client.call("place")
        if from_place["is_past"]:
            raise EnvironmentProblemError(
                f"{source} is in a mount of the past, which the store cannot copy by name:"
                " use 'ossfs-py restore', or cp"
            )
        # The store cannot copy a file that is not uploaded yet.
        client.call("sync")
    with ControlClient.of(target_mount) as client:
        to_place = client.call("place")
        if any(from_place[name] != to_place[name] for name in ("store", "bucket")):
            raise EnvironmentProblemError(
                f"{source} and {target} are in different buckets: the store copies within one"
            )
        screen = console(stderr=True)
        with screen.status("") as status:

            def on_progress(state: Mapping[str, Any]) -> None:
                status.update(f"{counted(state['files'], 'file')}, {short_size(state['bytes'])}")

            arguments = {
                "source": from_place["prefix"] + source_below,
                "reserved": from_place["reserved"],
                "path": target_below,
                "recursive": Path(source).is_dir(),
            }
            told = client.call("copy", arguments, on_progress)
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return 1 if told["failed"] else 0
    for key, why in told["failed"].items():
        say(f"ossfs-py: {key}: {why}", err=True)
    passed = f", {told['there_already']:,} there already" if told["there_already"] else ""
    say(f"{counted(told['files'], 'file')} ({short_size(told['bytes'])}) copied{passed}")
    return 1 if told["failed"] else 0
