"""Why programs wait, in one sentence for ``ossfs-py stats``. Pure."""

from ossfs_py.cli.mount_metrics import MountMetrics, short_time

_MUCH = 0.5
"""If programs waited for this share of the bytes, their source is the reason."""
_HELD_BACK = 0.1
"""If requests waited for a limit during this share of the time (summed up), it is the reason."""
_BUDGET_FULL = 0.9
"""With this share of the memory budget in use, the planner reads nothing further ahead."""


def bottleneck(now: MountMetrics, before: MountMetrics, seconds: float) -> str:
    """The reason why programs waited between two looks; empty if they read nothing."""
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
    return _held_back(now, before, seconds) or _full(now) or _pace(now, before)


def _held_back(now: MountMetrics, before: MountMetrics, seconds: float) -> str:
    if now.grown(before, "ossfs_limited_seconds_total", "download") > _HELD_BACK * seconds:
        return "--download-limit holds the downloads back."
    if any(wait["waits_for"].startswith("its turn") for wait in now.waits):
        return "The store asks to slow down."
    if any(wait["attempt"] > 1 for wait in now.waits):
        return "Requests are sent again: see WAITING, and the log."
    return ""


def _full(now: MountMetrics) -> str:
    limit = now.get("ossfs_store_request_limit")
    running, waiting = (now.get("ossfs_store_jobs", state) for state in ("running", "waiting"))
    if limit and waiting and running >= limit:
        return (
            f"{limit:.0f} requests are in flight, as many as --concurrency allows, and others wait."
            " Try a higher --concurrency."
        )
    used, most = (now.get(f"ossfs_memory_budget_{name}_bytes") for name in ("used", "limit"))
    if used > _BUDGET_FULL * most > 0:
        return "The memory budget is used up. Try a higher --memory-limit."
    return ""


def _pace(now: MountMetrics, before: MountMetrics) -> str:
    name = "ossfs_store_request_seconds"
    calls = now.grown(before, f"{name}_count", "GetObject")
    if not calls:
        return "The store has not answered a GetObject since the last look."
    each = now.grown(before, f"{name}_sum", "GetObject") / calls
    running = now.get("ossfs_store_jobs", "running")
    return f"{running:.0f} requests are in flight, and a GetObject takes {short_time(each)}."
