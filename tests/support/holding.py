"""A store that does not answer until it is told to, and waiting for what comes of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.mounting import BUSY_SECONDS, END_SECONDS
from tests.support.proxy import Fault, Proxy


@contextmanager
def held(proxy: Proxy, operation: str, *keys: str) -> Iterator[threading.Event]:
    """Requests about these objects wait at the store until the event is set, at the latest until
    the block ends. What the mount tries on scratch keys passes.
    """
    gate = threading.Event()
    faults = [Fault(operation, key=key, times=None, held_until=gate) for key in keys]
    proxy.faults.extend(faults)
    try:
        yield gate
    finally:
        gate.set()
        for fault in faults:
            proxy.faults.remove(fault)


def asked(proxy: Proxy, operation: str, key: str | None = None) -> bool:
    """Whether the store was asked for it."""
    return any(each.operation == operation and key in {None, each.key} for each in proxy.exchanges)


def wait_for(true: Callable[[], bool]) -> None:
    """Until something holds that nobody tells of."""
    deadline = time.monotonic() + END_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(BUSY_SECONDS)
