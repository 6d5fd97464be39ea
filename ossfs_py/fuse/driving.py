"""A handler's coroutine, driven by hand in the task that has read its request."""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeAlias

Serve: TypeAlias = Coroutine[Any, Any, None]
"""Serves one request."""


@coroutine
def driven(served: Serve, waits: Callable[[], None]) -> Generator[Any, Any, bool]:
    """Run ``served`` in this task, and call ``waits`` before its first wait; returns whether it
    waited.
    """
    try:
        message = served.send(None)
    except StopIteration:
        return False
    waits()
    while True:
        try:
            answer = yield message
        except BaseException as exc:  # noqa: BLE001 - whatever trio throws is the handler's
            step = partial(served.throw, exc)
        else:
            step = partial(served.send, answer)
        try:
            message = step()
        except StopIteration:
            return True
