"""The loop around short requests that take no thread; see :class:`InlineReads`."""

import trio

from ossfs_py.store.base import InlineReads

_LOOK_SECONDS = 1.0


async def receive(reads: InlineReads | None) -> None:
    """Take the answers as they arrive, until cancelled. None: there will be none."""
    if reads is None:
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look, reads)
        while True:
            await trio.lowlevel.wait_readable(reads.fileno())
            reads.receive()


async def _look(reads: InlineReads) -> None:
    while True:
        await trio.sleep(_LOOK_SECONDS)
        reads.look()
