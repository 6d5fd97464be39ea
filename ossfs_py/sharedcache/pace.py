"""How fast the shared cache and the bucket are, and what follows from it. Pure."""

_SMOOTHING = 0.1
_SAMPLE_BYTES = 256 * 1024
"""Smaller transfers measure latency rather than throughput."""
_ENOUGH = 64
_SLOWER = 4.0
"""A shared cache that takes this many times as long as the bucket is used less. A bucket may be
limited for all machines together where the cache is not: what one request takes says little of what
all would take. With 2.0, eight nodes on two cores at a load of 30, whose memcached had to wait for
the processor, made the bucket send 4.4 times what it had to."""
_ONE_IN = 8
"""One request in this many still goes to a slow shared cache, to see whether it has recovered."""

_SHORTEST_WAIT_SECONDS = 4.0
_FIRST_WAIT_SECONDS = 15.0
"""Nothing is known of the bucket yet: as long as a lease."""
_LONGEST_WAIT_SECONDS = 30.0
_WAIT_FACTOR = 4.0
"""A machine that gives up too early asks a slow bucket for the same bytes again. With 10 s at most,
eight nodes behind 100 Mbit/s asked for 1350 of 1024 blocks twice before half was read."""
_SHORTEST_LEASE_SECONDS = 15
_LONGEST_LEASE_SECONDS = 60
_FIRST_POLL_SECONDS = 0.01
_RAREST_POLL_SECONDS = 0.2


class SharedPace:
    """Smoothed times, told from any thread: an update that is lost does no harm."""

    def __init__(self) -> None:
        self._cache_seconds = 0.0
        self._store_seconds = 0.0
        self._request_seconds = 0.0
        self._cache_samples = 0
        self._store_samples = 0
        self._passed = 0

    def cache_took(self, size: int, seconds: float) -> None:
        """The nodes gave ``size`` bytes."""
        if size >= _SAMPLE_BYTES:
            self._cache_seconds = _smoothed(self._cache_seconds, seconds / size)
            self._cache_samples += 1

    def store_took(self, size: int, seconds: float) -> None:
        """The bucket gave ``size`` bytes."""
        self.another_took(seconds)
        if size >= _SAMPLE_BYTES:
            self._store_seconds = _smoothed(self._store_seconds, seconds / size)
            self._store_samples += 1

    def another_took(self, seconds: float) -> None:
        """Count a wait for a block that another machine fetched."""
        self._request_seconds = _smoothed(self._request_seconds, seconds)

    def worth_asking(self) -> bool:
        """Whether the next request is to go to the nodes first."""
        if min(self._cache_samples, self._store_samples) < _ENOUGH:
            return True
        if self._cache_seconds <= _SLOWER * self._store_seconds:
            return True
        self._passed += 1
        return self._passed % _ONE_IN == 0

    @property
    def wait_seconds(self) -> float:
        """How long to wait for what another mount fetches: what such a fetch may take on a bucket
        that many use at once, as requests show.
        """
        if not self._request_seconds:
            return _FIRST_WAIT_SECONDS
        usual = _WAIT_FACTOR * self._request_seconds
        return min(max(usual, _SHORTEST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)

    @property
    def lease_seconds(self) -> int:
        """For how long others are told that this mount fetches a block: longer than a request takes
        on a busy bucket, and short enough if the mount dies.
        """
        usual = int(_WAIT_FACTOR * self._request_seconds)
        return min(max(usual, _SHORTEST_LEASE_SECONDS), _LONGEST_LEASE_SECONDS)

    def poll_seconds(self, polls: int) -> float:
        """The pause before the next look for such a block, after so many looks: a quarter of a
        request first, then longer ones.
        """
        first = max(self._request_seconds / 4, _FIRST_POLL_SECONDS)
        return float(min(first * 1.5**polls, _RAREST_POLL_SECONDS))


def _smoothed(before: float, now: float) -> float:
    return before + _SMOOTHING * (now - before) if before else now
