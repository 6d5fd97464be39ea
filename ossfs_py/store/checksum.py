"""CRC-32C, 0.03 to 0.06 CPU-s per GiB, without Python's lock for long bytes."""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TypeAlias

_Summed: TypeAlias = Callable[[memoryview, int], int]

_KNOWN = (b"123456789", 0xE3069283)
"""The check value of CRC-32C (RFC 3720, B.4, and the catalogue of CRC algorithms)."""


def crc32c(data: memoryview, value: int = 0) -> int:
    """The sum of what ``value`` is the sum of, with ``data`` behind it."""
    return _summed()(data, value)


@cache
def _summed() -> _Summed:
    """The function of awscrt that does it, which a mount without writes does not need."""
    return _alone() or _of_package()


def _alone() -> _Summed | None:
    """From the package's library without its start, which takes 38 of 40 ms of CPU: it makes ready
    what HTTP, TLS and S3 need. None if there is no such function, or it does not work alone.
    """
    found = find_spec("_awscrt")
    if found is None or found.origin is None:
        return None
    try:
        call = ctypes.PyDLL(found.origin).aws_py_checksums_crc32c
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.py_object, ctypes.py_object)
    call.restype = ctypes.py_object

    def summed(data: memoryview, value: int) -> int:
        return int(call(None, (data, value)))

    known, its_sum = _KNOWN
    return summed if summed(memoryview(known), 0) == its_sum else None


def _of_package() -> _Summed:
    from awscrt import checksums  # noqa: PLC0415

    def summed(data: memoryview, value: int) -> int:
        return int(checksums.crc32c(data, value))

    return summed
