"""Counters and histograms of one mount, in one registry.

The registry is created by the composition root and handed down; nothing is global.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ossfs_py.waits import Waits


class Metrics:
    """Every figure the mount keeps about itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.waits = Waits()
        self.requests = Counter(
            "ossfs_store_requests", "Requests sent to the store", ["operation"], registry=r
        )
        self.request_errors = Counter(
            "ossfs_store_errors", "Requests that failed for good", ["operation"], registry=r
        )
        self.retries = Counter(
            "ossfs_store_retries", "Requests sent again", ["operation"], registry=r
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
        self.bytes_received = Counter(
            "ossfs_store_received_bytes", "Object bytes downloaded", registry=r
        )
        self.bytes_sent = Counter("ossfs_store_sent_bytes", "Object bytes uploaded", registry=r)
        self.bytes_read = Counter(
            "ossfs_read_bytes", "Bytes answered to programs", ["source"], registry=r
        )
        self.memory_bytes = Gauge(
            "ossfs_memory_budget_used_bytes", "Memory budget in use", registry=r
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
