"""``ossfs-py list``."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ossfs_py.cli.terminal import console, printable, say
from ossfs_py.config.units import counted

if TYPE_CHECKING:
    from ossfs_py.host.mounttable import MountEntry


@dataclass(frozen=True)
class _Row:
    mountpoint: str
    source: str
    endpoint: str
    data_path: str | None
    pid: int | None
    state: str
    unsaved_files: int = 0
    """Kept for ``ossfs-py recover``."""

    @property
    def words(self) -> str:
        """The state as it is shown."""
        if not self.unsaved_files:
            return self.state
        unsaved = counted(self.unsaved_files, "unsaved file")
        return f"{self.state}, {unsaved} (ossfs-py recover)"


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_mounts(as_json: bool) -> int:
    """Show the mounts of ossfs-py on this host, their daemons, and whether they answer."""
    rows = _rows()
    if as_json:
        click.echo(json.dumps([row.__dict__ for row in rows], indent=1))
    elif not rows:
        say("Nothing is mounted.")
    else:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("MOUNTPOINT", "SOURCE", "ENDPOINT", "DATA PATH", "PID", "STATE"):
            table.add_column(name, overflow="fold")
        for row in rows:
            pid = "" if row.pid is None else str(row.pid)
            cells = (row.mountpoint, row.source, row.endpoint, row.data_path or "", pid, row.words)
            table.add_row(*map(printable, cells))
        console(whole_lines=True).print(table)
    return 0


def _rows() -> list[_Row]:
    from concurrent.futures import ThreadPoolExecutor

    from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, THIS_MACHINE
    from ossfs_py.host.running import given_up_mounts

    entries = [one for one in THIS_MACHINE.mounts() if one.filesystem_type == FILESYSTEM_TYPE]
    # Each is asked whether it answers, which takes seconds of those that hang.
    with ThreadPoolExecutor(max(1, len(entries))) as threads:
        rows = list(threads.map(_row, entries))
    mounted = {row.mountpoint for row in rows}
    return rows + [
        _Row(ended.mountpoint, ended.source, "", None, None, f"given up: {ended.why}")
        for ended in given_up_mounts()
        if ended.mountpoint not in mounted
    ]


def _row(entry: "MountEntry") -> _Row:
    from ossfs_py.host.standing import Standing, look_at
    from ossfs_py.writing.leftovers import count_unsaved

    seen = look_at(entry.mountpoint)
    state = {
        Standing.SERVED: "mounted",
        Standing.SERVED_ELSEWHERE: "mounted: its daemon runs in another container"
        if os.geteuid() in (0, entry.owner)
        else "mounted: by another user",
        Standing.SILENT: f"broken: it {seen.problem}",
        Standing.DEAD: "dead: its daemon is gone"
        if seen.record is None
        else "dead: its daemon still uploads",
        Standing.HIDDEN: "of another user",
    }.get(seen.standing, "unmounted meanwhile")
    mount = seen.record
    if mount is None:
        return _Row(str(entry.mountpoint), entry.source, "", None, None, state)
    directory = mount.state_directory
    unsaved = count_unsaved(Path(directory), ended=False) if directory else 0
    shown = (mount.mountpoint, mount.source, mount.endpoint, mount.data_path)
    return _Row(*shown, mount.pid, state, unsaved)
