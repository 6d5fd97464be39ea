"""The loop around small PUTs that take no thread; see :class:`InlineWrites`."""

import trio

from ossfs_py.store.base import InlineWrites

_LOOK_SECONDS = 1.0


async def serve_puts(writes: InlineWrites | None) -> None:
    """Send and receive what can go on, until cancelled: threads repeat what is running then. None:
    there will be none.
    """
    if writes is None:
        await trio.sleep_forever()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_look, writes)
            writes.serve()
            while True:
                await trio.lowlevel.wait_readable(writes.fileno())
                writes.receive()
    finally:
        writes.end()


async def _look(writes: InlineWrites) -> None:
    while True:
        await trio.sleep(_LOOK_SECONDS)
        writes.look()
