"""What tests of renames in the background have in common."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.support.fake_store import FakeStore
from tests.support.filesystems import METADATA_TTL_SECONDS


def files(store: FakeStore) -> dict[str, bytes]:
    """What the store has, but for markers."""
    return {key: store.content(key) for key in sorted(store.objects) if not key.endswith("/")}


async def time_passes(seconds: float = METADATA_TTL_SECONDS + 1) -> None:
    """While requests are held: after this, by default, nothing remembered is believed."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked(0.01)


async def fails(call: Callable[[], Awaitable[object]], error: type[Exception]) -> None:
    with pytest.raises(error):
        await call()


class InBackground:
    """A call of another program."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[object]]) -> None:
        self.is_done = False
        nursery.start_soon(self._run, call)

    async def _run(self, call: Callable[[], Awaitable[object]]) -> None:
        await call()
        self.is_done = True
