"""Why programs wait, in one sentence for ``ossfs-py stats``. Pure."""

from ossfs_py.cli.mount_metrics import MountMetrics, short_time

_MUCH = 0.5
"""Of the bytes that were read: from here on, their source is what programs wait for."""
_HELD_BACK = 0.1
"""Of the time, summed over all requests: from here on, a limit is the reason."""
_FULL = 0.9
"""Of the memory budget: the planner reads nothing further ahead."""


def bottleneck(now: MountMetrics, before: MountMetrics, seconds: float) -> str:
    """What held programs up between two looks; empty if they read nothing."""
    read = {
        source: now.grown(before, "ossfs_read_bytes_total", source)
        for source in ("memory", "disk", "network")
    }
    if not (total := sum(read.values())):
        return ""
    if read["network"] >= _MUCH * total:
        return f"Programs wait for the network. {_network(now, before, seconds)}"
    if read["disk"] >= _MUCH * total:
        place = "--cache-dir" if now.data_path == "cache" else "--temp-dir"
        return f"Programs wait for the local disk. Try --data-path direct, or a faster {place}."
    return (
        "Programs get their bytes from memory: they wait neither for the network nor for the disk."
    )


def _network(now: MountMetrics, before: MountMetrics, seconds: float) -> str:
    if now.grown(before, "ossfs_limited_seconds_total", "download") > _HELD_BACK * seconds:
        return "--download-limit holds the downloads back."
    if any(wait["attempt"] > 1 for wait in now.waits):
        return "Requests are sent again: see WAITING, and the log."
    limit = now.get("ossfs_store_request_limit")
    running, waiting = (now.get("ossfs_store_jobs", state) for state in ("running", "waiting"))
    if limit and waiting and running >= limit:
        return f"All {limit:.0f} requests that may be in flight are. Try a higher --concurrency."
    used, most = (now.get(f"ossfs_memory_budget_{name}_bytes") for name in ("used", "limit"))
    if used > _FULL * most > 0:
        return "The memory budget is used up. Try a higher --memory-limit."
    name = "ossfs_store_request_seconds"
    calls = now.grown(before, f"{name}_count", "GetObject")
    if not calls:
        return "The store has not answered a GetObject in this second."
    each = now.grown(before, f"{name}_sum", "GetObject") / calls
    return f"{running:.0f} requests are in flight, and a GetObject takes {short_time(each)}."
