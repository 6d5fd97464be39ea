"""Which node has which blocks: rendezvous hashing with weights. Pure.

Every mount computes the same answer from the same nodes. When one goes, only its share moves, and
evenly to the others; when it comes back, the same share moves back.
"""

import math
from collections.abc import Iterable
from typing import Protocol, TypeVar

import xxhash

STRIPE_BYTES = 2 * 1024**2
"""Neighbouring blocks of this much have one node, so that a request of 8 MiB asks four at most. All
nodes read the same place at about the same time: with stripes of 8 MiB the links of few of them
would serve it (a simulation of 64 nodes takes 1.5 times as long with those; 6% less with 1 MiB)."""


class Weighted(Protocol):
    """The nodes to choose from."""

    @property
    def seed(self) -> int:
        """A number of its own, the same on every machine."""
        ...

    @property
    def weight(self) -> float:
        """Its share beside the others'; 0 for none."""
        ...


Chosen = TypeVar("Chosen", bound=Weighted)


def seed_of(name: str) -> int:
    """The seed of a node of this name."""
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))


def choose(what: bytes, nodes: Iterable[Chosen]) -> Chosen | None:
    """The node of ``what``; None if none has any weight.

    Each node draws a number u in (0, 1) for ``what``; the largest weight / -ln(u) wins, so that a
    node's chance is exactly its share of all weights.
    """
    best, highest = None, 0.0
    for node in nodes:
        drawn = (xxhash.xxh3_64_intdigest(what, seed=node.seed) + 0.5) / 2.0**64
        score = node.weight / max(-math.log(drawn), 1e-300) if drawn < 1.0 else math.inf
        if node.weight > 0 and score > highest:
            best, highest = node, score
    return best
