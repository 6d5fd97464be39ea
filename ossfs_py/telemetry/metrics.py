"""Counters and histograms of one mount, in one registry.

The registry is created by the composition root and handed down; nothing is global.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from ossfs_py.telemetry.waits import Waits

Labels = tuple[str, ...]
"""Values of a family's labels, in the order of their names."""

MEMORY, DISK, NETWORK = ("memory",), ("disk",), ("network",)
"""Sources of the bytes of an answer: they were in memory, or the reader waited for them."""
USED, WASTED = ("used",), ("wasted",)
SENT, WON = ("sent",), ("won",)


class Tally(Collector):
    """A counter for hot paths: ``values[labels] += amount`` costs 0.1 us, a labelled Counter 1 us.

    Belongs to one thread, which also scrapes it.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        known: Iterable[Labels] = (),
    ) -> None:
        """``known`` labels are shown from the beginning, as zero."""
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self.values: defaultdict[Labels, int] = defaultdict(int, dict.fromkeys(known, 0))
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        yield family


class Timings(Collector):
    """Count and duration of calls by name, for hot paths. Belongs to one thread."""

    def __init__(
        self, name: str, documentation: str, label: str, registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        registry.register(self)

    def add_since(self, began: float, name: str) -> None:
        """A call that began at ``began`` (of ``time.perf_counter``) has ended."""
        self._counts[name] += 1
        self._seconds[name] += perf_counter() - began

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        family = SummaryMetricFamily(self._name, self._documentation, labels=[self._label])
        for name, count in self._counts.items():
            family.add_metric([name], count, self._seconds[name])
        yield family


class Metrics:
    """Every metric the mount keeps about itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.waits = Waits()
        ProcessCollector(registry=r)
        self.mount = Info("ossfs_mount", "What is mounted where", registry=r)
        self.requests = Counter(
            "ossfs_store_requests", "Requests sent to the store", ["operation"], registry=r
        )
        self.request_errors = Counter(
            "ossfs_store_errors", "Requests that failed for good", ["operation"], registry=r
        )
        self.retries = Counter(
            "ossfs_store_retries", "Requests sent again", ["operation"], registry=r
        )
        self.credential_refreshes = Counter(
            "ossfs_credential_refreshes",
            "Credentials read again (changed: the file did; refused: the store did)",
            ["reason"],
            registry=r,
        )
        self.request_seconds = Histogram(
            "ossfs_store_request_seconds",
            "Time of one request, retries included",
            ["operation"],
            registry=r,
        )
        self.requests_waiting = Gauge(
            "ossfs_store_waiting", "Calls to the store that are under way", registry=r
        )
        self.requests_waiting.set_function(self.waits.count)
        self.longest_wait = Gauge(
            "ossfs_store_longest_wait_seconds", "Age of the oldest of them", registry=r
        )
        self.longest_wait.set_function(self.waits.longest_seconds)
        self.request_limit = Gauge(
            "ossfs_store_request_limit",
            "Requests that may be under way at once (fewer while the store asks to slow down)",
            registry=r,
        )
        self.limited_seconds = Counter(
            "ossfs_limited_seconds",
            "Time for which requests waited because of --download-limit and --upload-limit",
            ["way"],
            registry=r,
        )
        self.bytes_received = Counter(
            "ossfs_store_received_bytes", "Object bytes downloaded", registry=r
        )
        self.read_endpoint_requests = Counter(
            "ossfs_read_endpoint_requests",
            "Requests to the read endpoint (given; lacking: it has not got the version; failed)",
            ["outcome"],
            registry=r,
        )
        self.read_endpoint_bytes = Counter(
            "ossfs_read_endpoint_bytes",
            "Object bytes downloaded from the read endpoint",
            registry=r,
        )
        self.bytes_sent = Counter("ossfs_store_sent_bytes", "Object bytes uploaded", registry=r)
        self.bytes_read = Tally(
            "ossfs_read_bytes",
            "Object bytes answered to programs (memory: were there; network, disk: waited for)",
            ["source"],
            r,
            [MEMORY, DISK, NETWORK],
        )
        self.prefetch_bytes = Tally(
            "ossfs_prefetch_bytes",
            "Bytes downloaded ahead of their reader (used, or wasted: dropped unread)",
            ["outcome"],
            r,
            [USED, WASTED],
        )
        self.hedges = Tally(
            "ossfs_hedged_requests",
            "Second requests for bytes that were late: sent, and those that came first",
            ["outcome"],
            r,
            [SENT, WON],
        )
        self.operations = Timings(
            "ossfs_operation_seconds", "POSIX operations and their time", "operation", r
        )
        self.operation_errors = Tally(
            "ossfs_operation_errors",
            "POSIX operations that were answered with an error",
            ["operation", "errno"],
            r,
        )
        self.kernel_waiting = Gauge(
            "ossfs_kernel_waiting_requests",
            "Requests the kernel waits for (NaN where it does not tell)",
            registry=r,
        )
        self.store_jobs = Gauge(
            "ossfs_store_jobs", "Store calls (running, waiting for a thread)", ["state"], registry=r
        )
        self.open_files = Gauge("ossfs_open_files", "Open files, each counted once", registry=r)
        self.unsaved_files = Gauge(
            "ossfs_unsaved_files", "Files with changes the bucket has not got yet", registry=r
        )
        self.kept_files = Gauge(
            "ossfs_kept_unsaved_files",
            "Files that could not be saved and are kept for ossfs-py recover",
            registry=r,
        )
        self.memory_bytes = Gauge(
            "ossfs_memory_budget_used_bytes", "Memory budget in use", registry=r
        )
        self.memory_limit_bytes = Gauge(
            "ossfs_memory_budget_limit_bytes", "Memory budget", registry=r
        )
        self.small_file_prefetch = Counter(
            "ossfs_small_file_prefetch",
            "Small files fetched before they were opened (used, wasted)",
            ["outcome"],
            registry=r,
        )
        self.write_back_files = Gauge(
            "ossfs_write_back_pending_files", "Closed files not uploaded yet", registry=r
        )
        self.write_back_bytes = Gauge(
            "ossfs_write_back_pending_bytes", "Bytes of closed files not uploaded yet", registry=r
        )
        self.hidden_keys = Counter("ossfs_hidden_keys", "Keys that no path can name", registry=r)
        self.handler_failures = Counter(
            "ossfs_handler_failures", "Unexpected exceptions turned into EIO", registry=r
        )
        self.cache_hit_bytes = Counter(
            "ossfs_cache_hit_bytes", "Bytes read from the disk cache", registry=r
        )
        self.cache_miss_bytes = Counter(
            "ossfs_cache_miss_bytes", "Bytes fetched because the disk cache had not", registry=r
        )
        self.cache_kept_bytes = Counter(
            "ossfs_cache_kept_bytes", "Bytes written to the disk cache", registry=r
        )
        self.cache_skipped_bytes = Counter(
            "ossfs_cache_skipped_bytes",
            "Bytes not written to the disk cache (no_room, slow_disk, busy, unusable)",
            ["reason"],
            registry=r,
        )
        self.cache_evicted_bytes = Counter(
            "ossfs_cache_evicted_bytes", "Disk space the cache gave back", registry=r
        )
        self.cache_lost_reads = Counter(
            "ossfs_cache_lost_reads",
            "Reads of cached blocks that were damaged, short, unreadable or gone",
            registry=r,
        )
        self.cache_used_bytes = Gauge(
            "ossfs_cache_used_bytes", "Disk space of the cache, all mounts together", registry=r
        )
        self.cache_limit_bytes = Gauge(
            "ossfs_cache_limit_bytes", "Disk space that the cache may take", registry=r
        )
