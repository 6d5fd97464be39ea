"""Every fuzz target over its seeds, its old failures and some thousand mutations of them.

``make fuzz`` looks further, guided by coverage.
"""

import random
import time
from collections.abc import Iterator

import pytest

from tests.fuzz.targets import SEEDS, TARGETS

SECONDS = 0.4
"""For the mutations of one target; how many that are does not matter."""
_TOKENS = (
    b"<",
    b">",
    b"&#0;",
    b"&lt;",
    b'"',
    b"\0",
    b"\r\n",
    b"-1",
    b"%",
    b":",
    b"9" * 30,
    b"\xff",
)


def mutations(name: str, rng: random.Random) -> Iterator[bytes]:
    """Seeds with pieces changed, removed, repeated and mixed."""
    while True:
        data = bytearray(rng.choice(SEEDS[name]))
        for _ in range(rng.randrange(1, 6)):
            position = rng.randrange(len(data) + 1)
            match rng.randrange(5):
                case 0 if data:
                    data[position - 1] ^= 1 << rng.randrange(8)
                case 1:
                    data[position:position] = rng.choice(_TOKENS)
                case 2:
                    del data[position : position + rng.randrange(1, 20)]
                case 3:
                    data[position:position] = data[: rng.randrange(1, 50)]
                case _:
                    other = rng.choice(SEEDS[name])
                    data[position:] = other[rng.randrange(len(other) + 1) :]
        yield bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_comes_from_outside_is_a_surprise(name: str) -> None:
    target = TARGETS[name]
    for seed in SEEDS[name]:
        target(seed)
    end = time.monotonic() + SECONDS
    for data in mutations(name, random.Random(1)):
        try:
            target(data)
        except Exception as exc:
            raise AssertionError(f"{name} fails for {data!r}") from exc
        if time.monotonic() > end:
            return
