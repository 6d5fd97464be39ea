"""Checksums of parts that are known without reading them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.model import ByteRange, FileSlice
from ossfs_py.store.checksum import crc32c
from ossfs_py.store.s3.bodies import CRC_HEADER, digest_headers, payload_of
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.sums import PartSums
from ossfs_py.writing.uploadpace import UploadPace
from tests.support.writing import TINY_PARTS, pattern

SCHEDULE = PartSchedule(TINY_PARTS)
MIB = 1024**2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_each_part_written_in_order_is_summed(sizes: list[int]) -> None:
    content = pattern(sum(sizes))
    sums, position = PartSums(SCHEDULE), 0
    for size in sizes:
        sums.add(position, memoryview(content[position : position + size]))
        position += size
    for number in range(1, SCHEDULE.number_at(position - 1) + 1):
        span = SCHEDULE.span(number)
        part = ByteRange(span.start, min(span.end, position))
        assert sums.of(part) == crc32c(memoryview(content[part.start : part.end]))
    assert sums.of(ByteRange(1, position)) is None


@pytest.mark.parametrize("offset", [0, 9, 21])
def test_nothing_is_known_of_what_was_written_out_of_order(offset: int) -> None:
    sums = PartSums(SCHEDULE)
    sums.add(0, memoryview(pattern(20)))
    sums.add(offset, memoryview(b"other"))
    sums.add(20, memoryview(pattern(20)))
    assert [sums.of(SCHEDULE.span(number)) for number in range(1, 6)] == [None] * 5
    assert sums.of(ByteRange(16, 20)) is None


def test_a_body_whose_sum_is_known_is_not_read_for_it() -> None:
    known = FileSlice(-1, 0, 5, crc32c(memoryview(b"known")))
    told = digest_headers(payload_of(known), "crc32c")
    assert told == digest_headers(payload_of(b"known"), "crc32c")
    assert list(told) == [CRC_HEADER]


class _Sending:
    """A file whose parts of 8 MiB are always as many as the pace allows."""

    def __init__(self, pace: UploadPace) -> None:
        self.pace, self.now, self.most_seen = pace, 0.0, 0

    def send(self, count: int, each: float, in_all: float) -> int:
        """``count`` parts, to a store that takes so many bytes a second on a connection and in all;
        how many are then in flight."""
        for _ in range(count):
            beside = self.pace.in_flight(16)
            self.most_seen = max(self.most_seen, beside)
            rate = min(each, in_all / beside)
            self.now += 8 * MIB / rate / beside
            self.pace.took(8 * MIB, 8 * MIB / rate, beside, self.now)
        return self.pace.in_flight(16)


def test_more_parts_are_in_flight_while_that_moves_more() -> None:
    file = _Sending(UploadPace())
    assert file.pace.in_flight(16) == 4
    assert file.pace.in_flight(3) == 3
    assert file.send(1, 90e6, 1e12) == 8
    assert file.send(8, 90e6, 1e12) == 16
    assert file.send(200, 90e6, 1e12) == 16


def test_a_store_that_takes_no_more_from_many_connections_gets_few() -> None:
    file = _Sending(UploadPace())
    file.send(300, 300e6, 300e6)
    assert file.most_seen == 8
    many = [file.send(1, 300e6, 300e6) for _ in range(1000)]
    assert many.count(4) > 900
    # Now each connection is slow, and the others do not matter.
    assert file.send(60, 20e6, 1e12) == 16


def test_a_fast_store_gets_few_parts_at_a_time() -> None:
    pace = UploadPace()
    pace.took(100, 1e-6, 1, 0.0)  # says nothing
    pace.took(8 * MIB, 0.004, 2, 0.0)
    for now in range(100):
        pace.took(8 * MIB, 0.016, 4, 0.01 * now)
        assert pace.in_flight(16) <= 5
