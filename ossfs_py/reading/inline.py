"""The loop around short requests that take no thread; see :class:`InlineRequests`."""

import trio

from ossfs_py.runtime.beside import served_beside
from ossfs_py.store.base import InlineRequests

_LOOK_SECONDS = 1.0


async def receive(requests: InlineRequests | None) -> None:
    """Go on with them as the store's answers arrive, until cancelled. None: there will be none."""
    if requests is None:
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look, requests)
        with served_beside(requests):
            while True:
                await trio.lowlevel.wait_readable(requests.fileno())
                requests.receive()


async def _look(requests: InlineRequests) -> None:
    while True:
        await trio.sleep(_LOOK_SECONDS)
        requests.look()
