"""On paper: 64 nodes, 100 Gbit/s links, a bucket limited to 100 Gbit/s for all of them together.

In steps of a millisecond every node takes blocks that lie in its window from the nodes that have
them, as far as both links allow, and leases from the bucket what nobody has. Placement is the real
one; a block is with its node a first byte and a transfer after it was leased.
"""

import random
from collections import defaultdict
from dataclasses import dataclass

import pytest

from ossfs_py.sharedcache.placement import STRIPE_BYTES, choose, seed_of

MIB = 1024**2
LINK = 12  # blocks of 1 MiB a millisecond: 100 Gbit/s
BUCKET = 12
FIRST_BYTE = 25  # ms


@dataclass(frozen=True)
class Place:
    seed: int
    weight: float = 1.0


def simulate(
    nodes: int, blocks: int, stripe: int, window: int, *, shared: bool = True
) -> tuple[int, int]:
    """Milliseconds until all have read everything, and blocks that the bucket sent."""
    rng = random.Random(1)
    places = [Place(seed_of(f"10.0.0.{n}:11211")) for n in range(nodes)]
    at = [places.index(choose(b"%d" % (b // stripe), places) or places[0]) for b in range(blocks)]
    arrives: dict[int, int] = {}
    position = [0] * nodes
    had: list[set[int]] = [set() for _ in range(nodes)]
    now = sent = 0
    while min(position) < blocks:
        now += 1
        bucket = BUCKET
        out: defaultdict[int, int] = defaultdict(lambda: LINK)
        for reader in rng.sample(range(nodes), nodes):
            room = LINK
            here = had[reader]
            for block in range(position[reader], min(position[reader] + window, blocks)):
                if block in here:
                    continue
                if not room:
                    break
                if shared and arrives.get(block, now + 1) <= now:
                    server = at[block]
                    if server == reader or out[server]:
                        out[server] -= server != reader
                        room -= 1
                        here.add(block)
                elif bucket and (not shared or block not in arrives):
                    bucket -= 1
                    room -= 1
                    sent += 1
                    arrives.setdefault(block, now + FIRST_BYTE)
                    here.add(block)
            while position[reader] in here:
                here.discard(position[reader])
                position[reader] += 1
    return now, sent


def seconds_of_140_gb(milliseconds: int, blocks: int) -> float:
    return milliseconds / blocks * 140e9 / MIB / 1000


BLOCKS = 1536
OURS = STRIPE_BYTES // MIB


def test_without_sharing_the_bucket_s_limit_is_all_there_is() -> None:
    took, sent = simulate(64, 96, OURS, 96, shared=False)
    assert sent == 64 * 96
    assert seconds_of_140_gb(took, 96) == pytest.approx(712, rel=0.05)


def test_sixty_four_nodes_are_ended_by_what_each_reads_ahead_first() -> None:
    """96 MiB ahead are 25 ms of half a link: more of it counts for more than anything else."""
    took, sent = simulate(64, BLOCKS, OURS, 96)
    assert sent == BLOCKS
    assert 30 < seconds_of_140_gb(took, BLOCKS) < 50
    took, sent = simulate(64, BLOCKS, OURS, 384)
    assert sent == BLOCKS
    assert seconds_of_140_gb(took, BLOCKS) < 28


def test_stripes_as_large_as_a_request_would_let_few_links_work_at_a_time() -> None:
    ours, _ = simulate(64, BLOCKS, OURS, 384)
    large, _ = simulate(64, BLOCKS, 8, 384)
    assert large > 1.3 * ours
