"""The table of ``ossfs-py stats``: metrics, and their changes since the last sample. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ossfs_py.cli.formatting import short_size
from ossfs_py.config.units import counted

_RATE = "PER SECOND"
_OPERATIONS_SHOWN = 12
_WAITS_SHOWN = 5
_LONG_KEY = 40


class MountMetrics:
    """The metrics of one look at a mount, by name and label values."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.source = str(told["source"])
        self.data_path = str(told["data_path"])
        self.waits: list[Mapping[str, Any]] = list(told.get("waiting", ()))
        self._values: dict[tuple[str, ...], float] = {}
        for family in told["metrics"].values():
            for sample in family["samples"]:
                labels = sample["labels"].values()
                self._values[(sample["name"], *labels)] = float(sample["value"])

    def get(self, name: str, *labels: str) -> float:
        """One metric; 0 for one that has not been counted yet."""
        return self._values.get((name, *labels), 0.0)

    def grown(self, before: Self, name: str, *labels: str) -> float:
        """How much a counter has grown since ``before``; 0 if the daemon began anew."""
        return max(0.0, self.get(name, *labels) - before.get(name, *labels))

    def known(self, name: str, *labels: str) -> bool:
        """Whether the mount tells it at all."""
        return (name, *labels) in self._values

    def sum(self, name: str, first: str) -> float:
        """A metric of two labels, summed over the second one."""
        return sum(value for key, value in self._values.items() if key[:2] == (name, first))

    def labels(self, name: str) -> list[str]:
        """Values of the first label of a metric, in the order in which they appeared."""
        return list(dict.fromkeys(key[1] for key in self._values if key[0] == name))


@dataclass(frozen=True, slots=True)
class Section:
    """A small table: a heading for each column, and rows of texts."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(now: MountMetrics, before: MountMetrics | None, seconds: float) -> list[Section]:
    """The tables of one screen. Without ``before`` there are no rates."""
    look = _Look(now, before, seconds)
    tables = (
        *(look.traffic(), look.store(), look.shared_cache(), look.nodes()),
        *(look.operations(), look.state(), look.waits()),
    )
    return [_without_rates(one) if before is None else one for one in tables if one.rows]


def _without_rates(section: Section) -> Section:
    kept = [n for n, heading in enumerate(section.headings) if heading != _RATE]
    return Section(
        tuple(section.headings[n] for n in kept),
        tuple(tuple(row[n] for n in kept) for row in section.rows),
    )


_TRAFFIC = (
    ("Bytes read, from memory", "ossfs_read_bytes_total", "memory"),
    ("Bytes read, waited for network", "ossfs_read_bytes_total", "network"),
    ("Bytes read, waited for disk", "ossfs_read_bytes_total", "disk"),
    ("Downloaded", "ossfs_store_received_bytes_total", None),
    ("Uploaded", "ossfs_store_sent_bytes_total", None),
    ("Read ahead and used", "ossfs_prefetch_bytes_total", "used"),
    ("Read ahead and wasted", "ossfs_prefetch_bytes_total", "wasted"),
)
_CACHE_TRAFFIC = (
    ("Disk cache, found", "ossfs_cache_hit_bytes_total", None),
    ("Disk cache, missing", "ossfs_cache_miss_bytes_total", None),
    ("Disk cache, evicted", "ossfs_cache_evicted_bytes_total", None),
)

_SHARED_BLOCKS = (
    ("Found", "hit"),
    ("Fetched for all", "won"),
    ("Fetched by others, waited for", "waited"),
    ("Waited for in vain", "late"),
    ("Not asked for", "unasked"),
    ("Not handed on", "dropped"),
)


class _Look:
    def __init__(self, now: MountMetrics, before: MountMetrics | None, seconds: float) -> None:
        self._now = now
        self._before = before
        self._seconds = max(seconds, 1e-6)

    def traffic(self) -> Section:
        wanted = _TRAFFIC + (_CACHE_TRAFFIC if self._now.data_path == "cache" else ())
        rows = []
        for text, name, label in wanted:
            labels = () if label is None else (label,)
            total = short_size(self._now.get(name, *labels))
            rows.append((text, self._size_rate(name, *labels), total))
        return Section(("TRAFFIC", _RATE, "TOTAL"), tuple(rows))

    def store(self) -> Section:
        rows = []
        for operation in self._now.labels("ossfs_store_requests_total"):
            seconds = "ossfs_store_request_seconds"
            row = (
                operation,
                self._rate("ossfs_store_requests_total", operation),
                f"{self._now.get('ossfs_store_requests_total', operation):.0f}",
                self._mean(seconds, operation),
                f"{self._now.get('ossfs_store_retries_total', operation):.0f}",
                f"{self._now.get('ossfs_store_errors_total', operation):.0f}",
            )
            rows.append(row)
        headings = ("STORE", _RATE, "TOTAL", "MEAN TIME", "RETRIES", "FAILED")
        return Section(headings, tuple(rows))

    def shared_cache(self) -> Section:
        """Nothing of a mount without one."""
        name = "ossfs_shared_cache_blocks_total"
        rows = [
            (text, self._rate(name, outcome), f"{self._now.get(name, outcome):.0f}")
            for outcome, text in _SHARED_BLOCKS
            if self._now.known(name, outcome)
        ]
        return Section(("SHARED CACHE, BLOCKS", _RATE, "TOTAL"), tuple(rows))

    def nodes(self) -> Section:
        """The nodes of the shared cache that gave or took something, or failed."""
        received, sent = (f"ossfs_shared_cache_{way}_bytes_total" for way in ("received", "sent"))
        errors = "ossfs_shared_cache_errors_total"
        rows = [
            (
                node,
                self._size_rate(received, node),
                short_size(self._now.get(received, node)),
                short_size(self._now.get(sent, node)),
                f"{self._now.sum(errors, node):.0f}",
            )
            for node in self._now.labels(received)
        ]
        return Section(("NODE", _RATE, "RECEIVED", "SENT", "ERRORS"), tuple(rows))

    def operations(self) -> Section:
        name = "ossfs_operation_seconds"
        busiest = sorted(
            self._now.labels(f"{name}_count"),
            key=lambda operation: -self._now.get(f"{name}_count", operation),
        )
        rows = [
            (
                operation,
                self._rate(f"{name}_count", operation),
                f"{self._now.get(f'{name}_count', operation):.0f}",
                self._mean(name, operation),
            )
            for operation in busiest[:_OPERATIONS_SHOWN]
        ]
        return Section(("OPERATION", _RATE, "TOTAL", "MEAN TIME"), tuple(rows))

    def state(self) -> Section:
        now = self._now
        used, limit = "ossfs_memory_budget_used_bytes", "ossfs_memory_budget_limit_bytes"
        rows = [
            ("Memory budget", f"{short_size(now.get(used))} of {short_size(now.get(limit))}"),
            ("Process", self._process()),
            ("Open files", f"{now.get('ossfs_open_files'):.0f}"),
            ("Unsaved files", self._unsaved()),
            ("Store calls", self._jobs()),
        ]
        if now.known("ossfs_kernel_waiting_requests"):
            rows.append(("Kernel waits for", f"{now.get('ossfs_kernel_waiting_requests'):.0f}"))
        if now.get("ossfs_write_back_pending_files"):
            size = short_size(now.get("ossfs_write_back_pending_bytes"))
            count = now.get("ossfs_write_back_pending_files")
            rows.append(("To be uploaded", f"{counted(int(count), 'closed file')}, {size}"))
        if now.data_path == "cache":
            rows.append(("Disk cache", short_size(now.get("ossfs_cache_used_bytes"))))
        if now.known("ossfs_shared_cache_nodes", "up"):
            up, down = (now.get("ossfs_shared_cache_nodes", state) for state in ("up", "down"))
            rows.append(("Shared cache", f"{counted(int(up + down), 'node')}, {down:.0f} down"))
        return Section(("STATE", ""), tuple(rows))

    def waits(self) -> Section:
        rows = [
            (
                f"{wait['operation']} {_shortened(str(wait['key']))}",
                f"{wait['seconds']:.1f} s",
                f"attempt {wait['attempt']}: {wait['waits_for']}",
            )
            for wait in self._now.waits[:_WAITS_SHOWN]
        ]
        return Section(("WAITING", "FOR", ""), tuple(rows))

    def _unsaved(self) -> str:
        dirty, kept = (
            self._now.get(name) for name in ("ossfs_unsaved_files", "ossfs_kept_unsaved_files")
        )
        given_up = f", and {kept:.0f} given up (ossfs-py recover)" if kept else ""
        return f"{dirty:.0f}{given_up}"

    def _jobs(self) -> str:
        states = ("running", "waiting")
        running, waiting = (self._now.get("ossfs_store_jobs", state) for state in states)
        most = self._now.get("ossfs_store_request_limit")
        limit = f" of at most {most:.0f}" if most else ""
        return f"{running:.0f} running{limit}, {waiting:.0f} waiting for a thread"

    def _process(self) -> str:
        resident = short_size(self._now.get("process_resident_memory_bytes"))
        text = f"{resident} resident"
        if self._before is not None:
            share = self._changed("process_cpu_seconds_total") / self._seconds
            text += f", {share:.0%} of a core"
        return text

    def _changed(self, name: str, *labels: str) -> float:
        if self._before is None:
            return 0.0
        return self._now.grown(self._before, name, *labels)

    def _rate(self, name: str, *labels: str) -> str:
        if self._before is None:
            return ""
        return f"{self._changed(name, *labels) / self._seconds:.1f}"

    def _size_rate(self, name: str, *labels: str) -> str:
        if self._before is None:
            return ""
        return f"{short_size(self._changed(name, *labels) / self._seconds)}/s"

    def _mean(self, name: str, label: str) -> str:
        """Since the last look, or since the mount began if nothing happened since."""
        count, total = self._changed(f"{name}_count", label), self._changed(f"{name}_sum", label)
        if not count:
            count, total = (
                self._now.get(f"{name}_count", label),
                self._now.get(f"{name}_sum", label),
            )
        return short_time(total / count) if count else ""


def short_time(seconds: float) -> str:
    """Three digits and a unit."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}" if seconds else "0"
    return f"{seconds:.3g} s"


def _shortened(key: str) -> str:
    return key if len(key) <= _LONG_KEY else f"...{key[-_LONG_KEY:]}"
