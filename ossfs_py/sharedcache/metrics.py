"""Metrics of the shared cache, for mounts that have one."""

from prometheus_client import CollectorRegistry, Counter, Gauge

HIT, WON, WAITED, LATE, UNASKED, DROPPED = "hit", "won", "waited", "late", "unasked", "dropped"
"""Outcomes of a block (see the help text of the metric)."""


class SharedCacheMetrics:
    """Counters of one mount, raised from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.blocks = Counter(
            "ossfs_shared_cache_blocks",
            "Blocks wanted from the shared cache (hit; won: fetched for all; waited: another mount"
            " fetched it; late: waited in vain; unasked: no node, or slower than the bucket) or"
            " dropped on their way there",
            ["outcome"],
            registry=registry,
        )
        for outcome in (HIT, WON, WAITED, LATE, UNASKED, DROPPED):
            self.blocks.labels(outcome)
        self.received_bytes = Counter(
            "ossfs_shared_cache_received_bytes",
            "Block bytes that came from a node",
            ["node"],
            registry=registry,
        )
        self.sent_bytes = Counter(
            "ossfs_shared_cache_sent_bytes",
            "Block bytes that a node took",
            ["node"],
            registry=registry,
        )
        self.errors = Counter(
            "ossfs_shared_cache_errors",
            "What nodes did wrong (down, slow, foreign, damaged, full)",
            ["node", "reason"],
            registry=registry,
        )
        self.nodes = Gauge(
            "ossfs_shared_cache_nodes", "Nodes by state (up, down)", ["state"], registry=registry
        )
