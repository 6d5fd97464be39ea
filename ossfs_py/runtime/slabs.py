"""Memory for buffers of a few sizes, carved from mappings of one size and reused while warm.

A buddy allocator (Knuth, The Art of Computer Programming, volume 1, 2.5): sizes are powers of two,
and what is free is halved for smaller buffers and joined again. The page a buffer had before is
the cheapest there is: the first touch of memory that the system has to find costs more than
receiving a block into it (0.8 s for 256 MiB were seen in a virtual machine).
"""

import mmap
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Self

import trio


class Loans:
    """Memory that other threads read after the trio thread is done with it, and what becomes of it.

    ``settled`` is called in the trio thread when memory came back that somebody asked for with
    :meth:`want`.
    """

    def __init__(self, settled: Callable[[], None]) -> None:
        self._settled = settled
        self._back: deque[LentMemory] = deque()
        self._is_wanted = False
        self._token: trio.lowlevel.TrioToken | None = None

    def want(self) -> None:
        """Report all memory that comes back, until :meth:`settle` says that nobody waits."""
        self._is_wanted = True

    def settle(self, *, is_wanted: bool) -> bool:
        """Count what came back, if anything did; ``is_wanted``: somebody waits for more."""
        self._is_wanted = is_wanted
        has_any = bool(self._back)
        while self._back:
            self._back.popleft().lent -= 1
        return has_any

    def _lend(self, memory: "LentMemory") -> None:
        memory.lent += 1
        if self._token is None:
            self._token = trio.lowlevel.current_trio_token()

    def _hand_back(self, memory: "LentMemory") -> None:
        self._back.append(memory)
        if self._is_wanted and self._token is not None:
            # After the loop's end nobody wants memory.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._settled)


class LentMemory(mmap.mmap):
    """Memory that can be lent. ``lent``: to how many, as far as the trio thread knows."""

    lent: int
    _loans: Loans | None

    def __new__(cls, size: int, loans: Loans | None) -> Self:
        """``size`` bytes of anonymous memory."""
        # Private: shared memory, mmap's default, is zeroed and accounted page by page in tmpfs.
        made = super().__new__(cls, -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        made.lent = 0
        made._loans = loans
        return made

    def lend(self) -> None:
        """It serves nothing else until it is handed back; belongs to the trio thread."""
        if self._loans is not None:
            self._loans._lend(self)

    def hand_back(self) -> None:
        """A loan is over; any thread may say so."""
        if self._loans is not None:
            self._loans._hand_back(self)


def mapping(size: int, loans: Loans | None = None) -> LentMemory:
    """``size`` bytes of anonymous memory; without ``loans`` it never serves a second time."""
    memory = LentMemory(size, loans)
    # A virtual machine gives free huge pages back to its host (free page reporting), and finding
    # one again took 6 ms, 3 ms a MiB. Small ones cost 0.4 ms a MiB, once.
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


class Slab:
    """One mapping. ``free_since``: when it became wholly free, on the caller's clock."""

    __slots__ = ("free_since", "memory", "number")

    def __init__(self, number: int, size: int, loans: Loans | None = None) -> None:
        self.number = number
        self.free_since = 0.0
        self.memory = mapping(size, loans)


class Span(NamedTuple):
    """``size`` bytes of a slab from ``offset`` on; ``warm``: they were touched before.

    A tuple, as a MiB that is taken and given back makes a dozen of them.
    """

    slab: Slab
    offset: int
    size: int
    warm: bool = True

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return memoryview(self.slab.memory)[self.offset : self.offset + self.size]


class Slabs:
    """Spans of powers of two up to ``slab_bytes``. Not thread-safe."""

    def __init__(self, slab_bytes: int, loans: Loans | None = None) -> None:
        self._slab_bytes = slab_bytes
        self._loans = loans
        self._free: dict[int, dict[tuple[int, int], Span]] = {}
        """Size -> (slab's number, offset) -> span; the one freed last is handed out first."""
        self._last_number = 0
        self.warm_free_bytes = 0
        """Free bytes that may still be mapped."""

    def take(self, size: int) -> Span:
        """``size`` bytes, warm ones if there are any."""
        found = size
        while not self._free.get(found):
            found *= 2
            if found > self._slab_bytes:
                self._last_number += 1
                slab = Slab(self._last_number, self._slab_bytes, self._loans)
                span = Span(slab, 0, self._slab_bytes, warm=False)
                break
        else:
            span = self._free[found].popitem()[1]
            self.warm_free_bytes -= span.size * span.warm
        while span.size > size:
            half = span.size // 2
            self._add(Span(span.slab, span.offset + half, half, span.warm))
            span = Span(span.slab, span.offset, half, span.warm)
        return span

    def give_back(self, span: Span, now: float) -> None:
        """The caller does not use ``span`` any more."""
        span = Span(span.slab, span.offset, span.size)
        while span.size < self._slab_bytes:
            key = (span.slab.number, span.offset ^ span.size)
            buddy = self._free.get(span.size, {}).pop(key, None)
            if buddy is None:
                break
            self.warm_free_bytes -= buddy.size * buddy.warm
            span = Span(span.slab, min(span.offset, buddy.offset), span.size * 2)
        span.slab.free_since = now
        self._add(span)

    def unmap_free(self, until: float, at_most: int | None = None) -> None:
        """Give back slabs wholly free since ``until`` or before, those that wait longest first;
        no more than ``at_most`` of their warm bytes.
        """
        whole = self._free.get(self._slab_bytes, {})
        for key, span in list(whole.items()):
            if span.slab.free_since <= until and (at_most is None or at_most > 0):
                del whole[key]
                self.warm_free_bytes -= span.size * span.warm
                if at_most is not None:
                    at_most -= span.size * span.warm

    def cool(self) -> None:
        """Give back the pages of everything free in slabs that are partly in use."""
        for size, spans in self._free.items():
            for key, span in list(spans.items()):
                if span.warm and size < self._slab_bytes:
                    span.slab.memory.madvise(mmap.MADV_DONTNEED, span.offset, size)
                    spans[key] = Span(span.slab, span.offset, size, warm=False)
                    self.warm_free_bytes -= size

    def _add(self, span: Span) -> None:
        self._free.setdefault(span.size, {})[span.slab.number, span.offset] = span
        self.warm_free_bytes += span.size * span.warm
