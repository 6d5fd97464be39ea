"""Inode numbers from keys: the same after every remount, whatever prefix is mounted. Pure."""

from collections.abc import Callable, Iterable
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


def hashes_of(seed: int, names: Iterable[str], step: int, hash_name: Hash = hash_of) -> list[int]:
    """``hash_name`` of many names in one directory; :func:`hash_of` in a third of the time."""
    if hash_name is not hash_of:
        return [hash_name(seed, name, step) for name in names]
    digest, start = xxhash.xxh3_64_intdigest, (seed + step * _STEP) & _SEED_MASK
    return [digest(name.encode("utf-8", "surrogatepass"), start) for name in names]


def seed_of(prefix: str, hash_name: Hash = hash_of) -> int:
    """The seed of a mount's root: what its directory has in a mount of the whole bucket."""
    seed = 0
    for name in prefix.split("/")[:-1]:
        seed = hash_name(seed, name, 0)
    return seed
