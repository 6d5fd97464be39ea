"""Memory for buffers of a few sizes."""

import itertools
import random

from ossfs_py.runtime.slabs import Slabs, Span

MIB = 1024**2


def test_what_was_freed_last_is_handed_out_first() -> None:
    """Its pages are warm."""
    slabs = Slabs(8 * MIB)
    first, second = slabs.take(MIB), slabs.take(MIB)
    first.view[0] = 1
    second.view[0] = 2
    slabs.give_back(first, 0.0)
    assert slabs.take(MIB).view[0] == 1


def test_small_spans_join_to_large_ones_again() -> None:
    slabs = Slabs(8 * MIB)
    spans = [slabs.take(MIB) for _ in range(8)]
    assert len({span.slab.number for span in spans}) == 1
    for span in random.Random(3).sample(spans, 8):
        slabs.give_back(span, 0.0)
    assert slabs.take(8 * MIB).slab is spans[0].slab


def test_spans_never_overlap() -> None:
    slabs = Slabs(8 * MIB)
    chance = random.Random(7)
    held: list[Span] = []
    for _ in range(2000):
        if held and chance.random() < 0.5:
            slabs.give_back(held.pop(chance.randrange(len(held))), 0.0)
        else:
            held.append(slabs.take(MIB << chance.randrange(4)))
        places = sorted((s.slab.number, s.offset, s.offset + s.size) for s in held)
        for (slab, _, end), (other, start, _) in itertools.pairwise(places):
            assert slab != other or end <= start
    for span in held:
        slabs.give_back(span, 5.0)
    slabs.unmap_free(4.0)
    assert slabs.warm_free_bytes > 0
    slabs.unmap_free(5.0)
    assert slabs.warm_free_bytes == 0


def test_free_pages_of_a_slab_in_use_can_be_given_back() -> None:
    slabs = Slabs(8 * MIB)
    kept, freed = slabs.take(4 * MIB), slabs.take(4 * MIB)
    kept.view[0] = freed.view[0] = 9
    slabs.give_back(freed, 0.0)
    assert slabs.warm_free_bytes == 4 * MIB
    slabs.cool()
    assert slabs.warm_free_bytes == 0
    assert kept.view[0] == 9
    again = slabs.take(4 * MIB)
    assert again.slab is kept.slab
    assert again.view[0] == 0
