"""What a system call is refused with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(code: int) -> Iterator[None]:
    """The block must fail with this errno."""
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        yield
    assert caught.value.errno == code


@contextmanager
def refused_as(*codes: int) -> Iterator[None]:
    """The block is refused for one of several reasons."""
    try:
        yield
    except OSError as exc:
        assert exc.errno in codes
    else:
        pytest.fail("it was not refused")
