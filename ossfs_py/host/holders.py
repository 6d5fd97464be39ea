"""Copies of a mount in other mount namespaces, which keep it alive when it is unmounted.

A container that starts gets a copy of every mount below its volumes. Unmounting on the host
reaches the copies that are shared or slaves; private ones stay, and with them the daemon.
"""

from pathlib import Path

from ossfs_py.host.mounttable import read_mount_table

_PROCESSES = Path("/proc")


def holders_of(device: str, besides: int, processes: Path = _PROCESSES) -> list[str]:
    """Those that have the mount of this ``major:minor`` device, as far as this user may see it;
    in words. Not the daemon itself (``besides``), whose own copy ends with it.
    """
    here = processes / "self"
    found = [
        f"a second mount at {entry.mountpoint}"
        for entry in read_mount_table(here / "mountinfo")
        if entry.device == device
    ]
    looked_at = {_namespace(processes / str(besides)), _namespace(here)}
    for process in sorted(processes.glob("[0-9]*"), key=lambda path: int(path.name)):
        namespace = _namespace(process)
        if namespace in looked_at:
            continue
        looked_at.add(namespace)
        try:
            entries = read_mount_table(process / "mountinfo")
            command = (process / "comm").read_text(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile
        found += [
            f"{command} (process {process.name}), which has it at {entry.mountpoint}"
            for entry in entries
            if entry.device == device
        ][:1]
    return found


def _namespace(process: Path) -> str | None:
    """None for a process that has ended, or is another user's."""
    try:
        return str((process / "ns/mnt").readlink())
    except OSError:
        return None
