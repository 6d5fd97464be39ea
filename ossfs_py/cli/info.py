"""``ossfs-py info``."""

import json
import time
from pathlib import Path

import click

from ossfs_py.cli.figures import short_size


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Tell it as JSON.")
def info(path: str, as_json: bool) -> int:
    """Show the object behind PATH: its key, version and size, and how much of it is cached."""
    from ossfs_py.control_client import ControlClient, mount_of

    entry, below = mount_of(Path(path))
    with ControlClient.of(entry) as client:
        told = client.call("info", {"path": below})
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return 0
    cached = told["cached_bytes"]
    rows = {
        "Kind": told["kind"],
        "Bucket": told["bucket"],
        "Key": told["key"],
        "ETag": told["etag"],
        "Size": f"{short_size(told['bytes'])} ({told['bytes']} bytes)",
        "Modified": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(told["modified"])),
        "Mode": told["mode"],
        "Storage class": told["storage_class"],
        "Data path": told["data_path"],
        "Cached": None if cached is None else short_size(cached),
        "Open": "yes" if told["open"] else "no",
        "Unsaved changes": "yes" if told["unsaved"] else "no",
    }
    for name, value in rows.items():
        if value is not None:
            click.echo(f"{name:<16}{value}")
    return 0
