"""CRC-32C, from the library alone and from its package."""

import random
import subprocess
import sys
from importlib.machinery import ModuleSpec
from itertools import pairwise

import pytest
from awscrt import checksums

from ossfs_py.store import checksum

BYTES = random.Random(3).randbytes(3_000_000)


@pytest.mark.parametrize("cuts", [(), (1,), (4096, 70_001), (2_000_000, 2_999_999)])
def test_both_ways_sum_alike(cuts: tuple[int, ...]) -> None:
    edges = (0, *cuts, len(BYTES))
    pieces = [memoryview(BYTES)[a:b] for a, b in pairwise(edges)]
    alone = checksum._alone()
    assert alone is not None
    for summed in (checksum.crc32c, alone, checksum._of_package()):
        value = 0
        for piece in pieces:
            value = summed(piece, value)
        assert value == checksums.crc32c(BYTES)


def test_the_package_is_not_loaded_for_it() -> None:
    told = "import sys; from ossfs_py.store.checksum import crc32c;"
    told += "assert crc32c(memoryview(b'123456789')) == 0xE3069283;"
    told += "assert not {'awscrt', '_awscrt'} & set(sys.modules);"
    # Who needs the package afterwards gets it, and the sums stay what they are.
    told += "from awscrt import checksums; assert checksums.crc32c(b'123456789') == 0xE3069283;"
    told += "assert crc32c(memoryview(b'123456789')) == 0xE3069283"
    subprocess.run([sys.executable, "-c", told], check=True)


@pytest.mark.parametrize("origin", [None, "/dev/null", sys.executable])
def test_another_library_is_left_to_its_package(
    monkeypatch: pytest.MonkeyPatch, origin: str | None
) -> None:
    monkeypatch.setattr(checksum, "find_spec", lambda name: ModuleSpec(name, None, origin=origin))
    assert checksum._alone() is None
