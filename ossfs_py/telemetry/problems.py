"""The problems of a mount, in words, from its metrics now and some minutes ago. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Figures = Mapping[tuple[str, ...], float]
"""Samples of metrics by name and label values."""

_LONG_WAIT_SECONDS = 10.0
"""A request takes longer at times; a store that works does not."""

_SKIPPED = {
    "no_room": "there is no space for them",
    "slow_disk": "the disk is slower than the network",
    "unusable": "its directory cannot be used",
}
"""Why the disk cache leaves bytes out; "busy" is a matter of moments."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The metrics at both ends of some minutes. ``most_requests``: the highest limit seen."""

    now: Figures
    before: Figures
    seconds: float
    most_requests: float

    def changed(self, name: str, *labels: str) -> float:
        """How much a counter has grown, summed over the labels that are not given."""
        key = (name, *labels)
        return sum(self.by_label(key).values())

    def by_label(self, key: tuple[str, ...]) -> dict[tuple[str, ...], float]:
        """How much the counters that begin with ``key`` have grown, those that have, by the rest
        of their labels."""
        grown = {
            found[len(key) :]: value - self.before.get(found, 0.0)
            for found, value in self.now.items()
            if found[: len(key)] == key
        }
        return {labels: value for labels, value in grown.items() if value > 0}

    def get(self, name: str, *labels: str) -> float:
        """A gauge now; 0 for one that is not told."""
        return self.now.get((name, *labels), 0.0)


def problems(span: Stretch) -> list[str]:
    """Sentences, the most urgent first; none while all is well."""
    within = f"in the last {_minutes(span.seconds)}"
    return [sentence for tell in _TELLERS for sentence in tell(span, within)]


def _kept(span: Stretch, _within: str) -> Iterator[str]:
    if count := span.get("ossfs_kept_unsaved_files"):
        yield (
            f"{counted(count, 'file')} could not be saved and are kept on this machine;"
            " see: ossfs-py recover"
        )


def _failed_requests(span: Stretch, within: str) -> Iterator[str]:
    if failed := span.by_label(("ossfs_store_errors_total",)):
        each = ", ".join(f"{labels[0]} {count:.0f}" for labels, count in failed.items())
        yield f"{counted(sum(failed.values()), 'request')} to the store failed {within} ({each})"


def _errors(span: Stretch, within: str) -> Iterator[str]:
    grown = span.by_label(("ossfs_operation_errors_total",))
    count = sum(value for labels, value in grown.items() if labels[-1] == "EIO")
    if count:
        yield f"programs got {counted(count, 'input/output error')} (EIO) {within}"
    if count := span.get("ossfs_handler_failures_total"):
        yield f"{counted(count, 'unexpected exception')} since the mount began; the log has them"


def _waits(span: Stretch, _within: str) -> Iterator[str]:
    longest = span.get("ossfs_store_longest_wait_seconds")
    if longest > _LONG_WAIT_SECONDS:
        yield f"a call to the store has waited for {longest:.0f} s"


def _slow_store(span: Stretch, within: str) -> Iterator[str]:
    limit = span.get("ossfs_store_request_limit")
    if limit < span.most_requests:
        yield (
            f"the store asks to slow down: {counted(limit, 'request')} at once instead of"
            f" {span.most_requests:.0f}"
        )
    if count := span.changed("ossfs_store_retries_total"):
        verb = "was" if count == 1 else "were"
        yield f"{counted(count, 'request')} to the store {verb} sent again {within}"
    if count := span.changed("ossfs_credential_refreshes_total", "refused"):
        yield f"the store refused the credentials {counted(count, 'time')} {within}"


def _shared_cache(span: Stretch, _within: str) -> Iterator[str]:
    up, down = (span.get("ossfs_shared_cache_nodes", state) for state in ("up", "down"))
    if down:
        verb = "is" if down == 1 else "are"
        yield f"{down:.0f} of the {counted(up + down, 'node')} of the shared cache {verb} down"


def _disk_cache(span: Stretch, within: str) -> Iterator[str]:
    for reason, why in _SKIPPED.items():
        if span.changed("ossfs_cache_skipped_bytes_total", reason):
            yield f"the disk cache skipped bytes {within}: {why}"
    if count := span.changed("ossfs_cache_lost_reads_total"):
        verb = "was" if count == 1 else "were"
        yield f"{counted(count, 'block')} of the disk cache {verb} damaged or gone {within}"


_TELLERS: tuple[Callable[[Stretch, str], Iterator[str]], ...] = (
    *(_kept, _failed_requests, _errors, _waits, _slow_store),
    *(_shared_cache, _disk_cache),
)


def counted(count: float, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count:.0f} {noun}" if round(count) == 1 else f"{count:.0f} {noun}s"


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return counted(minutes, "minute") if minutes else counted(max(1.0, seconds), "second")
