"""Test functions that are coroutines."""

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec

import trio

P = ParamSpec("P")


def in_trio(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a trio loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        trio.run(partial(test, *args, **kwargs))

    return run
