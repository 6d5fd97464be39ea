"""``ossfs-py info``."""

import json
import time
from pathlib import Path

import click

from ossfs_py.cli.formatting import short_size
from ossfs_py.cli.terminal import say


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(path: str, as_json: bool) -> int:
    """Show the object behind PATH: its key, version, size and metadata, how much of it is
    cached, and who has it open.
    """
    from ossfs_py.control.client import ControlClient, mount_of

    entry, below = mount_of(Path(path))
    with ControlClient.of(entry) as client:
        told = client.call("info", {"path": below})
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return 0
    rows = {
        "Kind": told["kind"],
        "Bucket": told["bucket"],
        "Key": told["key"],
        "ETag": told["etag"],
        "Version": told["version_id"],
        "Size": _size(told["bytes"]),
        "Modified": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(told["modified"])),
        "Mode": told["mode"],
        "Content type": told["content_type"],
        "Storage class": told["storage_class"],
        "Owner": told["owner"],
        "Retained": told["retention"],
        "Written by": told["writer"],
        "Written at": told["written"],
        "Data path": told["data_path"],
        "Cached": _share(told["cached_bytes"], told["bytes"]),
        "Open handles": str(told["open_handles"]),
        "Unsaved changes": "yes" if told["unsaved"] else "no",
    }
    for name, value in rows.items():
        if value is not None:
            say(f"{name:<16}{value}")
    for name, value in (told["metadata"] or {}).items():
        say(f"{'Metadata':<16}{name}: {value}")
    return 0


def _size(size_bytes: int) -> str:
    told = short_size(size_bytes)
    return told if size_bytes < 1024 else f"{told} ({size_bytes} bytes)"


def _share(cached_bytes: int | None, size_bytes: int) -> str | None:
    """How much of a file the disk cache holds; None where there is no cache."""
    if cached_bytes is None:
        return None
    share = cached_bytes / size_bytes if size_bytes else 1.0
    return f"{short_size(cached_bytes)} ({share:.0%})"
