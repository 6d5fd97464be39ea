"""The content of the status page: a mount's last minutes, its caches and files, and its problems.

All of it comes from the metrics. Reading the counters every few seconds takes some 0.2 ms of the
trio thread. The answer is made when a browser asks (see :mod:`exposition` for how often).
"""

import json
import logging
import math
import platform
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any

import trio
from prometheus_client.registry import Collector

from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.telemetry.problems import Figures, Stretch, problems

log = logging.getLogger(__name__)

_LOOK_SECONDS = 3.0
_LOOKS = 101
"""Five minutes of them."""
_TOLD_PACKAGES = ("ossfs-py", "pyfuse3", "trio", "boto3", "awscrt")

_READ, _WAITED = "ossfs_read_bytes_total", "ossfs_store_request_seconds"
_RECEIVED, _SENT = "ossfs_store_received_bytes_total", "ossfs_store_sent_bytes_total"
_NODE_RECEIVED = "ossfs_shared_cache_received_bytes_total"
_NODE_SENT, _NODE_ERRORS = "ossfs_shared_cache_sent_bytes_total", "ossfs_shared_cache_errors_total"


@dataclass(frozen=True, slots=True)
class _Glance:
    """The counters at one moment of trio's clock."""

    at: float
    figures: Figures
    cpu_seconds: float


class MountStatus:
    """The last minutes of one mount. Belongs to the trio thread."""

    def __init__(self, metrics: Metrics, *, names: bool) -> None:
        """``names``: tell the mountpoint, the prefix and the keys that are waited for."""
        self._metrics = metrics
        self._names = names
        self._began_at = time.time()
        self._glances: deque[_Glance] = deque(maxlen=_LOOKS)
        self._most_requests = 0.0
        self._versions: dict[str, str] = {}

    async def run(self) -> None:
        """Look at the counters, until cancelled."""
        while True:
            try:
                self._glances.append(self._glance())
            except Exception:
                # A gap in a chart is no reason to end the mount.
                log.exception("the status page misses a look at the metrics")
            await trio.sleep(_LOOK_SECONDS)

    def _glance(self) -> _Glance:
        m = self._metrics
        watched = (
            *(m.bytes_read, m.bytes_received, m.bytes_sent, m.request_seconds),
            *(m.requests, m.request_errors, m.retries, m.credential_refreshes),
            *(m.operation_errors, m.cache_skipped_bytes, m.cache_lost_reads, m.request_limit),
        )
        figures = dict(_figures(watched))
        limit = figures.get(("ossfs_store_request_limit",), 0.0)
        self._most_requests = max(self._most_requests, limit)
        return _Glance(trio.current_time(), figures, time.process_time())

    def told(self) -> bytes:
        """Everything the page shows, as JSON."""
        now = dict(_figures([self._metrics.registry]))
        first = self._glances[0] if self._glances else self._glance()
        seconds = trio.current_time() - first.at
        span = Stretch(now, first.figures, seconds, self._most_requests)
        told = {
            "mount": self._mount(),
            "up_seconds": round(time.time() - self._began_at),
            "span_seconds": round(seconds, 1),
            "history": list(self._history()),
            "answered": {labels[0]: n for labels, n in span.by_label((_READ,)).items()},
            "caches": list(self._caches(span)),
            "ring": self._ring(span),
            "store": list(self._store(span)),
            "waiting": self._waiting(span),
            "files": {
                "open": span.get("ossfs_open_files"),
                "unsaved": span.get("ossfs_unsaved_files"),
                "to_upload": span.get("ossfs_write_back_pending_files"),
                "to_upload_bytes": span.get("ossfs_write_back_pending_bytes"),
                "kept": span.get("ossfs_kept_unsaved_files"),
            },
            "process": {
                "resident_bytes": span.get("process_resident_memory_bytes"),
                "cores": _ratio(time.process_time() - first.cpu_seconds, seconds),
            },
            "versions": self._versions or self._find_versions(),
            "problems": problems(span),
        }
        return json.dumps(told).encode()

    def _mount(self) -> dict[str, str]:
        (family,) = self._metrics.mount.collect()
        facts = next((sample.labels for sample in family.samples), {})
        source = facts.get("source", "")
        told = {"bucket": source.partition("/")[0], "data_path": facts.get("data_path", "")}
        if self._names:
            told |= {"source": source, "mountpoint": facts.get("mountpoint", "")}
        return told

    def _history(self) -> Iterator[dict[str, float | None]]:
        """One entry for each pair of looks: seconds ago, bytes a second, mean milliseconds."""
        glances = list(self._glances)
        now = trio.current_time()
        for before, after in pairwise(glances):
            seconds = after.at - before.at
            span = Stretch(after.figures, before.figures, seconds, 0.0)
            calls = span.changed(f"{_WAITED}_count")
            yield {
                "ago": round(now - after.at, 1),
                "read": round(span.changed(_READ) / seconds),
                "downloaded": round(span.changed(_RECEIVED) / seconds),
                "uploaded": round(span.changed(_SENT) / seconds),
                "store_ms": _ratio(1000 * span.changed(f"{_WAITED}_sum"), calls) if calls else None,
            }

    def _caches(self, span: Stretch) -> Iterator[dict[str, Any]]:
        yield {
            "name": "Memory",
            "used": span.get("ossfs_memory_budget_used_bytes"),
            "limit": span.get("ossfs_memory_budget_limit_bytes"),
        }
        if limit := span.get("ossfs_cache_limit_bytes"):
            used = span.get("ossfs_cache_used_bytes")
            yield {"name": "Disk cache, all mounts", "used": used, "limit": limit}

    def _ring(self, span: Stretch) -> dict[str, Any] | None:
        """The nodes of the shared cache; None without one."""
        if ("ossfs_shared_cache_nodes", "up") not in span.now:
            return None
        errors = span.by_label((_NODE_ERRORS,))
        return {
            "up": span.get("ossfs_shared_cache_nodes", "up"),
            "down": span.get("ossfs_shared_cache_nodes", "down"),
            "nodes": [
                {
                    "node": node,
                    "received": span.get(_NODE_RECEIVED, node),
                    "sent": span.get(_NODE_SENT, node),
                    "errors": sum(n for labels, n in errors.items() if labels[0] == node),
                }
                for name, *labels in span.now
                if name == _NODE_RECEIVED
                for node in labels
            ],
        }

    def _store(self, span: Stretch) -> Iterator[dict[str, Any]]:
        """The operations of the last minutes."""
        seconds = span.by_label((f"{_WAITED}_sum",))
        for labels, count in span.by_label((f"{_WAITED}_count",)).items():
            yield {
                "operation": labels[0],
                "calls": count,
                "mean_ms": _ratio(1000 * seconds.get(labels, 0.0), count),
                "retries": span.changed("ossfs_store_retries_total", *labels),
                "failed": span.changed("ossfs_store_errors_total", *labels),
            }

    def _waiting(self, span: Stretch) -> dict[str, Any]:
        told: dict[str, Any] = {
            "calls": span.get("ossfs_store_waiting"),
            "longest_seconds": span.get("ossfs_store_longest_wait_seconds"),
        }
        if self._names:
            told["named"] = self._metrics.waits.told()
        return told

    def _find_versions(self) -> dict[str, str]:
        for package in _TOLD_PACKAGES:
            try:
                self._versions[package] = version(package)
            except PackageNotFoundError:
                continue  # as the operating system packs it: without its metadata
        self._versions["Python"] = platform.python_version()
        self._versions[platform.system()] = platform.release()
        return self._versions


def _figures(collectors: Iterable[Collector]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every sample that is a number, without the buckets of histograms."""
    for collector in collectors:
        for family in collector.collect():
            for name, labels, value, *_ in family.samples:
                if not name.endswith(("_bucket", "_created")) and not math.isnan(value):
                    yield (name, *labels.values()), value


def _ratio(amount: float, of: float) -> float:
    return round(amount / of, 3) if of else 0.0
