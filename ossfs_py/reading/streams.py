"""Which reads belong together: sequential streams among the reads of one inode. Pure.

Loaders interleave positions: several threads on one descriptor, a zip directory read at the end
before the records in the middle, kernel readahead that arrives slightly out of order. One cursor
per descriptor falls apart on all of these, so each inode keeps a few streams, and a read goes to
the stream whose position is near.
"""

from dataclasses import dataclass

MIB = 1024**2

_OPENS_AT = 2
"""The second read in order shows a direction."""

_BESIDE_SECONDS = 1.0
_STRAGGLER_HITS = 8
"""Reads of what a running stream has just passed are mostly its own, late and out of order (several
processes read one file, and the kernel has dropped a page here and there): only so many of them in
order make another reader, and it begins with a small window."""

_SPARSE_HOPS = 4
"""Hops in a row, each a little forward from the last read, that show a reader which passes over
what the kernel still has of the file. Random reads of a large file do not hop so by chance."""

_OWN_SECONDS = 5.0
_OVERRUN_BYTES = 16 * MIB
"""The kernel's own readahead takes a stream that far, at most, into what another one has read,
where some pages were dropped meanwhile. Whoever goes on behind that reads the bytes again."""

_WORTHWHILE = 1.15
"""A window beyond the wide one that makes the reader this much faster is kept."""
_NEAR_WORTHWHILE = 1.3
"""The same for what is near: half as much again there, and the pace of a busy machine varies."""

_PATIENCE_WINDOWS = 8
"""After a try that did not pay, the next one waits for this many windows of reading."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How streams are recognised and how far they are read ahead; all sizes in bytes.

    ``first_hop``: distance within which a second read shows a direction. Small, or random reads
    of a large file take one another for streams.
    ``near_back`` and ``near_forward``: distance from a running stream's position within which a
    read still belongs to it: kernel readahead arrives out of order, more so from
    several processes.
    ``sparse_hop``: distance of a hop of a reader that passes over what the kernel still has.
    ``first_window``: read ahead once a second read has shown a direction.
    ``wide_window``: beyond it a window grows only while that makes the reader faster: more memory
    than a reader needs is cold memory, and first touching it costs more than receiving into it.
    ``near_window``: the same for bytes that other machines have in memory, or a store nearby: the
    first one comes after a millisecond, not after 25.
    ``max_window``: enough parallel blocks to fill the link; 32 x 8 MiB keeps 2 GB/s busy at the
    118 ms that 8 MiB take on a connection with 25 ms to the first byte and 90 MB/s.
    """

    first_hop: int = 128 * 1024
    near_back: int = 32 * MIB
    near_forward: int = 4 * MIB
    sparse_hop: int = 8 * MIB
    first_window: int = 8 * MIB
    wide_window: int = 96 * MIB
    near_window: int = 32 * MIB
    max_window: int = 256 * MIB
    max_streams: int = 32
    idle_seconds: float = 1.0


class Stream:
    """One sequential reader: where it is (``position``), how far it may be read ahead
    (``window``) and up to where that was planned (``ahead``). ``limit``: where reading ahead ends
    for now; ``limit_is_exact``: nothing behind it will be wanted. ``home_end``: where the tensor it
    began in ends, if that is known; ``crossed``: it went on into the next one.
    """

    __slots__ = (
        "ahead",
        "crossed",
        "grow_at",
        "hits",
        "home_end",
        "hops",
        "last_used",
        "limit",
        "limit_is_exact",
        "opens_at",
        "opens_with",
        "position",
        "rate",
        "rated_at",
        "rated_from",
        "start",
        "target",
        "window",
    )

    def __init__(self, start: int, end: int, now: float) -> None:
        self.start = start
        self.position = end
        self.crossed = False
        self.home_end: int | None = None
        self.window = 0
        self.target = 0
        """What the window grows to, by as much as is read: filled at once, the larger window would
        take the link from the blocks that are needed next."""
        self.opens_with = 0
        """The window at its opening."""
        self.ahead = 0
        self.limit = 0
        self.limit_is_exact = False
        self.grow_at = 0
        self.hits = 1
        self.hops = 0
        """Gaps it has passed over, one after the other."""
        self.opens_at = _OPENS_AT
        """Reads forward after which it is read ahead."""
        self.last_used = now
        self.rate = 0.0
        """Bytes per second between the last two growths of the window."""
        self.rated_from, self.rated_at = end, now

    @property
    def straggles(self) -> bool:
        """Whether it reads what a running stream has passed, here and there so far."""
        return self.opens_at == _STRAGGLER_HITS and not self.window

    def covers(self, offset: int) -> bool:
        """Whether the stream has passed the byte at ``offset``."""
        return self.start <= offset < self.position


class StreamTable:
    """The streams of one object version."""

    __slots__ = ("_limits", "near", "streams")

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self.near = False
        """Whether what is read comes from other machines' memory, or a store nearby, now."""
        self.streams: list[Stream] = []

    def observe(self, start: int, end: int, now: float) -> Stream:
        """The stream that the read ``[start, end)`` belongs to, moved on to it.

        A read near no stream starts one, at the cost of the least recently used.
        """
        stream = self._nearest(start)
        if stream is not None:
            if end > stream.position:
                stream.position = end
                stream.hits += 1
            stream.last_used = now
            if self.streams[0] is not stream:
                self.streams.remove(stream)
                self.streams.insert(0, stream)
            return stream
        stream = self._hopping(start, now)
        if stream is not None:
            stream.position, stream.last_used = end, now
            stream.hops += 1
            if stream.hops >= _SPARSE_HOPS:
                stream.hits = max(stream.hits, stream.opens_at)
            return stream
        stream = Stream(start, end, now)
        horizon = now - _BESIDE_SECONDS
        stream.opens_with = self._limits.first_window
        for other in self.streams:
            if other.window and other.last_used > horizon and other.covers(start):
                stream.opens_at, stream.opens_with = _STRAGGLER_HITS, MIB
                break
            if other.position <= start < other.ahead:
                # A companion: it goes on where the other one has been read ahead.
                stream.opens_with = max(stream.opens_with, other.window)
        self.streams.insert(0, stream)
        del self.streams[self._limits.max_streams :]
        return stream

    def _nearest(self, start: int) -> Stream | None:
        """The stream whose position is nearest to ``start``, if any is near enough.

        The nearest, not the first: what belongs to neighbouring streams overlaps. A running one
        that reaches where another once looked takes over from there.
        """
        limits = self._limits
        best, best_distance, best_runs = None, limits.max_window, False
        for stream in self.streams:
            distance = start - stream.position
            if stream.window:
                if distance == 0:
                    return stream
                back, forward = limits.near_back, limits.near_forward
                passed = stream.position - stream.start
                if passed > forward:
                    # Further before its beginning, another reader begins.
                    back = min(back, passed + forward)
            else:
                back = forward = limits.first_hop
            if not -back <= distance <= forward:
                continue
            runs = stream.window > 0 and distance > 0
            if (best_runs, -best_distance) < (runs, -abs(distance)):
                best, best_distance, best_runs = stream, abs(distance), runs
        return best

    def _hopping(self, start: int, now: float) -> Stream | None:
        """The latest stream, if ``start`` is a hop forward from it.

        Not where another one has just been: its reader's companions lag behind, and most of what
        they hop over is in the page cache.
        """
        stream = self.streams[0] if self.streams else None
        if stream is None or (stream.window and not stream.hops):
            return None
        if not 0 < start - stream.position <= self._limits.sparse_hop:
            return None
        horizon = now - _OWN_SECONDS
        if any(
            s.window and not s.hops and s.last_used > horizon and s.covers(start)
            for s in self.streams
        ):
            return None
        return stream

    def widen(
        self, stream: Stream, cap: int, amount: int, *, waited: bool, bounded: bool = False
    ) -> int:
        """Set and return the window of a stream after a read of ``amount`` bytes.

        It opens at the second forward read, or at the first when it is known where reading will
        end (``bounded``) and nothing speaks for a mere look; it doubles when the reader
        had to wait although a quarter of it was used up, and never exceeds ``cap``.
        """
        limits = self._limits
        if stream.hits < (1 if bounded and stream.opens_at == _OPENS_AT else stream.opens_at):
            return 0
        cap = min(cap, limits.max_window)
        if stream.window == 0:
            most = min(limits.near_window, cap) if self.near else cap
            stream.window = stream.target = min(stream.opens_with, most)
            stream.grow_at = stream.position + stream.window // 4
            return stream.window
        if waited and stream.position >= stream.grow_at:
            self._grow(stream)
        if stream.window < stream.target:
            stream.window = min(stream.window + amount, stream.target)
        stream.window = min(stream.window, cap)
        return stream.window

    def _grow(self, stream: Stream) -> None:
        """Let the window grow: to double, or, already wide, by half of that as long as it pays."""
        elapsed = max(stream.last_used - stream.rated_at, 1e-6)
        rate = (stream.position - stream.rated_from) / elapsed
        limits = self._limits
        wide = limits.near_window if self.near else limits.wide_window
        pays = _NEAR_WORTHWHILE if self.near else _WORTHWHILE
        if stream.window > wide and rate < stream.rate * pays:
            stream.window = stream.target = wide
            stream.grow_at = stream.position + _PATIENCE_WINDOWS * wide
        else:
            if stream.window < wide:
                stream.target = min(stream.window * 2, wide)
            else:
                stream.target = min(stream.window + wide // 2, limits.max_window)
            stream.grow_at = stream.position + stream.target
        stream.rate = rate
        stream.rated_from, stream.rated_at = stream.position, stream.last_used

    def boundary(self, stream: Stream) -> int | None:
        """Where reading ahead for ``stream`` would run into what another stream has read."""
        return min(
            (s.start for s in self.streams if s.window and s.start >= stream.position), default=None
        )

    def trespasses(self, stream: Stream) -> bool:
        """Whether ``stream`` has just run into what another one has read."""
        for other in self.streams:
            if (
                other is not stream
                and other.window
                and stream.start < other.start < stream.position <= other.position
                and stream.position - other.start <= _OVERRUN_BYTES
                and stream.last_used - other.last_used < _OWN_SECONDS
            ):
                return True
        return False

    def active(self, now: float) -> int:
        """How many streams are being read ahead right now."""
        horizon = now - self._limits.idle_seconds
        return sum(1 for s in self.streams if s.window and s.last_used >= horizon)
