"""Signals that end a command the way Ctrl-C does: with everything cleaned up."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


@contextlib.contextmanager
def unwinding(*numbers: signal.Signals) -> Iterator[None]:
    """Let these signals run the clean-up of every ``with`` on its way out.

    The exit code is what a shell reports for a program ended by the signal.
    """

    def unwind(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
