"""What has arrived for the trio thread, taken by whoever waits for its own work beside the loop.

A round of trio's loop for one descriptor takes three system calls and two switches of tasks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import trio


class Arrivals(Protocol):
    """Something that arrives for the trio thread. Nothing here waits."""

    def fileno(self) -> int:
        """A descriptor that is readable when something has arrived."""
        ...

    def expects(self) -> bool:
        """Whether anything may arrive."""
        ...

    def receive(self) -> None:
        """Take what has arrived; if that is nothing, do nothing."""
        ...


_BESIDE: Final = trio.lowlevel.RunVar[list[Arrivals]]("beside")


def all_beside() -> list[Arrivals]:
    """What may be served beside this loop, now and later."""
    try:
        return _BESIDE.get()
    except LookupError:
        beside: list[Arrivals] = []
        _BESIDE.set(beside)
        return beside


@contextmanager
def served_beside(arrivals: Arrivals) -> Iterator[None]:
    """Inside the block, others may take what arrives; a task waits for its descriptor as well."""
    beside = all_beside()
    beside.append(arrivals)
    try:
        yield
    finally:
        beside.remove(arrivals)
