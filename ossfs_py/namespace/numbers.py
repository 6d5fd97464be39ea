"""Inode numbers from keys: the same after every remount, whatever prefix is mounted. Pure."""

from collections.abc import Callable
from typing import TypeAlias

import xxhash

_SEED_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: seeds of one step after the other lie far apart."""

Hash: TypeAlias = Callable[[int, str, int], int]
"""64 bits of (seed of the directory, name, how many numbers were in use before)."""


def hash_of(seed: int, name: str, step: int = 0) -> int:
    """64 bits of a name in the directory that has ``seed``: the hash of its own name, step 0."""
    raw = name.encode() if name.isascii() else name.encode("utf-8", "surrogatepass")
    return xxhash.xxh3_64_intdigest(raw, (seed + step * _STEP) & _SEED_MASK)


def seed_of(prefix: str, hash_name: Hash = hash_of) -> int:
    """The seed of a mount's root: what its directory has in a mount of the whole bucket."""
    seed = 0
    for name in prefix.split("/")[:-1]:
        seed = hash_name(seed, name, 0)
    return seed
