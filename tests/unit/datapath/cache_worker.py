"""A process that reads through a cache directory others use too, and checks every byte.

Arguments: cache directory, seed, limit in bytes, rounds. Prints a line a round, so that whoever
started it knows how far it is, and ends with the bytes it did not have to fetch.
"""

import random
import sys
from pathlib import Path

from ossfs_py.model import ObjectVersion
from tests.unit.datapath.caching import BLOCK, Reading, make_store

VERSIONS = [ObjectVersion(f"k{i}", "e", (3 + 7 * i) * BLOCK + 11 * i) for i in range(12)]


def main(cache_dir: Path, seed: int, limit: int, rounds: int) -> None:
    dice = random.Random(seed)
    store = make_store(cache_dir, limit=limit)
    saved = 0
    for number in range(rounds):
        reading = Reading(store, dice.choice(VERSIONS))
        size = reading.version.size
        for _ in range(4):
            start = dice.randrange(size)
            reading.check(start, dice.randrange(start + 1, size + 1))
            print(number, flush=True)  # noqa: T201 - the tests' signal
        reading.check(0, size)
        saved += size - min(size, reading.fetched)
        reading.close()
    store.close()
    print("saved", saved, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
