"""The output of ``ossfs-py bench``: a table with notes, or the same as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ossfs_py.bench.run import Measurement
from ossfs_py.bench.works import Material
from ossfs_py.cli.terminal import console, printable
from ossfs_py.config import units
from ossfs_py.host.mounttable import MountEntry

_OF_THE_DAEMON = ("CPU s", "STORE MB", "REQUESTS")
_WORTH_SAYING = 0.01
"""A page or two that stay in the page cache change no result."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured, and where."""

    root: Path
    entry: MountEntry
    data_path: str | None
    """None if the daemon is somebody else's."""
    material: Material
    measured: Sequence[Measurement]
    kept: Path | None
    """The directory of the files, if they are kept."""

    def document(self) -> dict[str, Any]:
        """For JSON: exact sizes and unrounded rates."""
        return {
            "directory": str(self.root),
            "mountpoint": str(self.entry.mountpoint),
            "source": self.entry.source,
            "data_path": self.data_path,
            "file_bytes": self.material.size_bytes,
            "small_files": self.material.small_files,
            "small_file_bytes": self.material.small_bytes,
            "works": [_row(one) for one in self.measured],
            "kept": str(self.kept) if self.kept is not None else None,
        }

    def show(self) -> None:
        """The table, on standard output."""
        screen = console(soft_wrap=True)
        path = f"{self.data_path} data path" if self.data_path else "another user's daemon"
        screen.print(printable(f"{self.entry.source} at {self.root} ({path})"))
        screen.print(f"{self._sizes()}\n")
        screen.print(_table(self.measured))
        screen.print()
        for note in self._notes():
            screen.print(note)

    def _sizes(self) -> str:
        """The files that were used."""
        material, told = self.material, []
        if any(not one.work.needs_small for one in self.measured):
            told.append(f"a file of {units.format_size(material.size_bytes)}")
        if any(one.work.needs_small for one in self.measured):
            size = units.format_size(material.small_bytes)
            told.append(f"{material.small_files} small files of {size}")
        return ", ".join(told)

    def _notes(self) -> Iterator[str]:
        yield "MB are 1,000,000 bytes."
        if any(one.spent is not None for one in self.measured):
            yield "CPU, STORE and REQUESTS are those of the whole mount meanwhile."
        reads = [one for one in self.measured if not (one.work.writes or one.work.needs_small)]
        for one in reads:
            stayed = one.stayed_bytes or 0
            if stayed > self.material.size_bytes * _WORTH_SAYING:
                yield (
                    f"{one.work.title}: {stayed / 1e6:,.0f} MB stayed in the page cache,"
                    " as other programs use the file."
                )
        if any(one.stayed_bytes is None for one in reads):
            yield "The kernel does not tell this user whether bytes came from its page cache."
        if any(one.spent is not None and one.spent.received_bytes < one.bytes / 2 for one in reads):
            cause = "" if self.data_path != "cache" else "the disk cache, unless "
            yield (
                "Where STORE is less than what was read, the rest came from this machine:"
                f" {cause}another program has the file open."
            )
        if self.kept is not None:
            yield f"The files are kept in {self.kept}."


def _row(one: Measurement) -> dict[str, Any]:
    spent = one.spent
    return {
        "work": one.work.name,
        "seconds": round(one.seconds, 6),
        "bytes": one.bytes,
        "operations": one.operations,
        "page_cache_bytes": one.stayed_bytes,
        "daemon_cpu_seconds": round(spent.cpu_seconds, 3) if spent else None,
        "store_received_bytes": spent.received_bytes if spent else None,
        "store_sent_bytes": spent.sent_bytes if spent else None,
        "store_requests": spent.requests if spent else None,
    }


def _table(measured: Sequence[Measurement]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("WORK", no_wrap=True)
    told = any(one.spent is not None for one in measured)
    for heading in ("SECONDS", "MB/s", "OPS/s", *(_OF_THE_DAEMON if told else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measured:
        seconds = max(one.seconds, 1e-6)
        cells = [
            f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.3f}",
            _number(one.bytes / 1e6 / seconds) if one.bytes else "",
            _number(one.operations / seconds) if one.operations is not None else "",
        ]
        if one.spent is not None:
            moved = one.spent.received_bytes + one.spent.sent_bytes
            cells += [f"{one.spent.cpu_seconds:.2f}", _number(moved / 1e6), f"{one.spent.requests}"]
        table.add_row(one.work.title, *cells)
    return table


def _number(value: float) -> str:
    """Two or three digits that matter."""
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2f}"
