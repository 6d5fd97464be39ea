"""Complete listings that are kept: how many, and for how long."""

from types import SimpleNamespace
from typing import cast

import trio
import trio.testing

from ossfs_py.namespace.listing.reading import Listing
from ossfs_py.namespace.listing.whole import WholeListings


def listing(entries: int) -> Listing:
    return cast(Listing, SimpleNamespace(index=dict.fromkeys(map(str, range(entries)))))


def kept(whole: WholeListings, numbers: range) -> list[int]:
    return [number for number in numbers if whole.get(number) is not None]


def test_as_many_are_kept_as_fit_and_the_oldest_go() -> None:
    async def main() -> None:
        whole = WholeListings(max_entries=10, ttl_seconds=60)
        whole.put(1, listing(4))
        whole.put(2, listing(3))
        assert kept(whole, range(5)) == [1, 2]
        whole.put(1, listing(2))
        whole.put(3, listing(4))
        assert kept(whole, range(5)) == [1, 3]
        whole.put(4, listing(10))
        assert kept(whole, range(5)) == [1, 3]
        whole.put(1, listing(9))
        whole.pop(1)
        whole.put(2, listing(9))
        assert kept(whole, range(5)) == [2]

    trio.run(main)


def test_those_that_are_too_old_go_with_the_next() -> None:
    async def main() -> None:
        whole = WholeListings(max_entries=10, ttl_seconds=60)
        whole.put(1, listing(1))
        await trio.sleep(40)
        whole.put(2, listing(1))
        await trio.sleep(30)
        whole.put(3, listing(1))
        assert kept(whole, range(5)) == [2, 3]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
