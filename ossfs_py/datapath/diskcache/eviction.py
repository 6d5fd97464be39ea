"""In which order block files leave the cache. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from ossfs_py.datapath.diskcache.layout import key_id

_PROTECTED_SHARE = 0.8
"""Files used again may hold this share of the bytes (segmented LRU): a scan over many files that
are read once passes through the rest and does not push out what is loaded every day."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block file as one stat(2) shows it.

    ``last_use_ns`` is kept in the file's mtime, the use before that in its atime: 0 for a file
    used once.
    """

    shelf: str
    name: str
    allocated_bytes: int
    last_use_ns: int
    previous_use_ns: int


def eviction_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """First to go first: superseded versions, then files by use.

    Of a key's versions, all but the one used last are superseded. Of the rest, the most recently
    used among those used at least twice are protected up to their share; everything else goes
    before them, least recently used first.
    """
    by_recency = sorted(candidates, key=lambda c: c.last_use_ns, reverse=True)
    seen: set[str] = set()
    superseded: list[Candidate] = []
    current: list[Candidate] = []
    for candidate in by_recency:
        identity = key_id(candidate.name)
        (superseded if identity in seen else current).append(candidate)
        seen.add(identity)
    room = _PROTECTED_SHARE * sum(c.allocated_bytes for c in current)
    protected: list[Candidate] = []
    others: list[Candidate] = []
    for candidate in current:
        if candidate.previous_use_ns > 0 and candidate.allocated_bytes <= room:
            room -= candidate.allocated_bytes
            protected.append(candidate)
        else:
            others.append(candidate)
    return superseded[::-1] + others[::-1] + protected[::-1]
