"""Which reads belong together."""

import itertools
import random

from ossfs_py.reading.streams import MIB, Stream, StreamLimits, StreamTable

KIB = 1024
CAP = 1024 * MIB


def observed(table: StreamTable, start: int, size: int, now: float = 0.0) -> Stream:
    stream = table.observe(start, start + size, now)
    table.widen(stream, CAP, size, waited=True)
    return stream


def test_a_second_reader_within_the_window_of_the_first_is_a_stream_of_its_own() -> None:
    """Two threads copy the halves of a tensor: neither may drag the other's position along."""
    table = StreamTable(StreamLimits(first_window=32 * MIB))
    observed(table, 0, MIB)
    first = observed(table, MIB, MIB)
    assert first.window
    second = observed(table, 16 * MIB, MIB)
    assert second is not first
    assert first.position == 2 * MIB
    assert observed(table, 2 * MIB, MIB) is first


def test_kernel_readahead_out_of_order_stays_in_its_stream() -> None:
    table = StreamTable(StreamLimits())
    observed(table, 0, MIB)
    stream = observed(table, MIB, MIB)
    assert observed(table, 4 * MIB, MIB) is stream
    assert observed(table, 3 * MIB, MIB) is stream
    assert observed(table, 2 * MIB, MIB) is stream


def test_a_running_stream_goes_on_where_another_once_looked() -> None:
    table = StreamTable(StreamLimits())
    look = observed(table, 10 * MIB, 128 * KIB)
    observed(table, 7 * MIB, MIB)
    running = observed(table, 8 * MIB, MIB)
    assert running.window
    # What the look has brought stays in the page cache: the next read comes behind it.
    assert observed(table, 10 * MIB + 128 * KIB, MIB) is running
    assert look is not running


def test_a_reader_that_passes_over_what_the_kernel_still_has_is_read_ahead() -> None:
    table = StreamTable(StreamLimits())
    streams = [observed(table, number * 5 * MIB, 64 * KIB) for number in range(8)]
    assert len(set(map(id, streams))) == 1
    assert streams[-1].window


def test_companions_that_lag_behind_a_running_reader_are_not_read_ahead() -> None:
    """Eight programs read one file, and the kernel drops a page here and there."""
    table = StreamTable(StreamLimits())
    for offset in range(200):
        observed(table, offset * MIB, MIB)
    for number in range(8):
        assert not observed(table, number * 5 * MIB, 64 * KIB).window


def test_random_reads_are_hardly_read_ahead() -> None:
    """In 1 GiB, one read in a hundred falls beside one of the latest by chance."""
    table = StreamTable(StreamLimits())
    places = random.Random(5)
    opened = sum(
        observed(table, places.randrange(262_144) * 4096, 4096).window > 0 for _ in range(1000)
    )
    assert opened <= 20


def test_a_stream_that_runs_into_what_another_has_read_is_told_from_one_that_reads_it_again() -> (
    None
):
    table = StreamTable(StreamLimits())
    for offset in range(64, 128):
        other = observed(table, offset * MIB, MIB)
    for offset in range(64):
        stream = observed(table, offset * MIB, MIB)
        assert not table.trespasses(stream)
    for offset in range(64, 80):
        assert observed(table, offset * MIB, MIB) is stream
        assert table.trespasses(stream)
    observed(table, 80 * MIB, MIB)
    assert not table.trespasses(stream)
    assert not table.trespasses(other)


def test_a_companion_begins_with_the_window_of_the_stream_that_was_read_ahead_past_it() -> None:
    table = StreamTable(StreamLimits())
    for offset in range(200):
        leader = observed(table, offset * MIB, MIB)
    leader.ahead = leader.position + leader.window
    start = leader.position + 16 * MIB
    observed(table, start, MIB)
    assert observed(table, start + MIB, MIB).window >= leader.window > 8 * MIB


def test_what_other_machines_have_in_memory_is_read_less_far_ahead() -> None:
    limits = StreamLimits(first_window=64 * MIB)
    tables = [StreamTable(limits), StreamTable(limits)]
    tables[1].near = True
    windows = []
    for table in tables:
        stream = observed(table, 0, MIB)
        for number in range(1, 400):
            stream = observed(table, number * MIB, MIB, now=number * 0.01)  # 100 MiB/s throughout
        windows.append(stream.window)
    assert windows == [limits.wide_window, limits.near_window]
    tables[1].near = False  # evicted there: it comes from the bucket again
    for number in range(400, 800):
        stream = observed(tables[1], number * MIB, MIB, now=number * 0.01)
    assert stream.window >= limits.wide_window


def test_a_window_grows_by_what_is_read() -> None:
    """Filled at once, the larger window would take the link from what is needed next."""
    table = StreamTable(StreamLimits())
    windows = [observed(table, offset * MIB, MIB, offset / 100).window for offset in range(2, 90)]
    assert max(windows) >= 64 * MIB
    opened = [window for window in windows if window]
    assert all(b - a <= MIB for a, b in itertools.pairwise(opened))


def test_a_reader_that_goes_back_before_the_beginning_of_another_is_read_ahead() -> None:
    """A state dict's order: one tensor was read, and the next one lies 28 MiB before it. What
    began so far before a running stream was taken for one of its late reads.
    """
    table = StreamTable(StreamLimits())
    for number in range(6):
        first = observed(table, (100 + number) * MIB, MIB)
    second = observed(table, 72 * MIB, MIB)
    assert second is not first
    assert observed(table, 73 * MIB, MIB) is second
    assert second.window
    assert observed(table, 99 * MIB, MIB) is first  # late, as the kernel may be
