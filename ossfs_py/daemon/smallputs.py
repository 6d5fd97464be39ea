"""Small PUTs that take no thread, for as long as a loop serves them; see :class:`InlineWrites`."""

import trio

from ossfs_py.reading.inline import receive
from ossfs_py.store.base import InlineWrites


async def serve_puts(writes: InlineWrites | None) -> None:
    """Send and receive what can go on, until cancelled: threads repeat what is running then. None:
    there will be none.
    """
    if writes is None:
        await trio.sleep_forever()
    try:
        writes.serve()
        await receive(writes)
    finally:
        writes.end()
