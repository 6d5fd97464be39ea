"""A mount's part in a shared cache, built and taken down."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ossfs_py.config import Settings
from ossfs_py.daemon.options import shared_cache_options
from ossfs_py.reading.shared import HandingOn
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from ossfs_py.sharedcache.keeping import Keeping
    from ossfs_py.sharedcache.stock import Stock

_THREADS = 4
"""Blocks on their way to the nodes at once; readers wait for none of them."""
_MEMORY_SHARE = 4
"""One part in this many of the memory budget waits to be handed on, whoever needs memory."""
_FIRST_LOOK_SECONDS = 1.0
"""How long a mount waits for the nodes before it answers without them."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """The parts of the shared cache; none without the option."""

    handing_on: HandingOn | None = None
    keeping: "Keeping | None" = None
    stock: "Stock | None" = None

    async def begin(self, start: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        """Look for the nodes, for a moment, and ``start`` what looks after them."""
        if self.keeping is not None:
            with trio.move_on_after(_FIRST_LOOK_SECONDS):
                await self.keeping.look()
            start(self.keeping.run)

    @property
    def busy(self) -> bool:
        """Whether something is still being handed on."""
        return self.handing_on is not None and self.handing_on.held_bytes > 0

    async def settled(self) -> None:
        """Wait until all that others wait for is handed on."""
        if self.handing_on is not None:
            await self.handing_on.settled()


@contextmanager
def sharing(settings: Settings, store: ObjectStore, metrics: Metrics) -> Iterator[Sharing]:
    """The part of a mount of these settings.

    Raises:
        EnvironmentProblemError: the secret cannot be used.
    """
    options = shared_cache_options(settings)
    if options is None:
        yield Sharing()
        return
    # Mounts that share nothing do not load any of it.
    from ossfs_py.sharedcache.cache import SharedCache  # noqa: PLC0415
    from ossfs_py.sharedcache.keeping import Keeping  # noqa: PLC0415
    from ossfs_py.sharedcache.metrics import SharedCacheMetrics  # noqa: PLC0415
    from ossfs_py.sharedcache.stock import Stock  # noqa: PLC0415

    cache = SharedCache(store, options, SharedCacheMetrics(metrics.registry))
    workers = Workers("sharing", _THREADS)
    limit_bytes = settings.memory_limit_bytes // _MEMORY_SHARE
    try:
        yield Sharing(
            HandingOn(cache, workers, limit_bytes), Keeping(cache, options, workers), Stock(cache)
        )
    finally:
        workers.close()
        cache.close()
