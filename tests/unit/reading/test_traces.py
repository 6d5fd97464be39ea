"""What real loaders read is planned in few requests, and little besides; see ``traces``."""

from dataclasses import dataclass, field

import pytest

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.belief import Belief
from ossfs_py.foresight.layout import Layout
from ossfs_py.model import ByteRange
from ossfs_py.reading.chunks import Chunk, ChunkIndex
from ossfs_py.reading.planning import NothingOnDisk, PlannedSpan, Planner, ReadOptions
from ossfs_py.reading.streams import MIB, StreamLimits, StreamTable
from tests.support.traces import Trace, trace

ROOM = 768 * MIB
BESIDE_EACH_READ = 2
"""Blocks that land while a program takes in a MiB: a link of 2 GB/s and a program as fast."""


class Unlimited:
    """A keeper that gives nothing up."""

    def landed(self, chunk: Chunk) -> None:
        pass

    def left(self, chunk: Chunk, *, had_bytes: bool) -> None:
        pass


@dataclass
class Planned:
    """What was asked for."""

    spans: list[PlannedSpan] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(span.size for span in self.spans)

    @property
    def waits(self) -> int:
        """Requests that somebody waited for from their beginning to their end."""
        return sum(span.urgent for span in self.spans)


def replay(recorded: Trace, *, room: int = ROOM, upto: int | None = None) -> Planned:
    """Plan the reads, one after the other, with everything asked for staying in memory."""
    options = ReadOptions()
    belief = Belief(recorded.file_size, options.block_size_bytes, room)
    index, streams = ChunkIndex(Unlimited()), StreamTable(StreamLimits(first_window=64 * MIB))
    planner = Planner(recorded.file_size, options, index, streams, belief, NothingOnDisk())
    planned = Planned()

    def take(span: PlannedSpan) -> None:
        index.ask(span.start, span.end)
        planned.spans.append(span)

    for number, (start, end) in enumerate(recorded.reads[:upto]):
        stream = streams.observe(start, end, number * 0.001)
        belief.observe(start, end)
        position = start
        while (needed := planner.needed(position, end, stream)) is not None:
            take(needed)
            position = needed.end
        for _ in range(BESIDE_EACH_READ):
            beside = planner.beside()
            if beside is None:
                break
            take(beside)
            belief.course.took(ByteRange(beside.start, beside.end))
        ahead = planner.ahead(stream, end - start, 256 * MIB, waited=True)
        while ahead is not None:
            take(ahead)
            ahead = planner.next_ahead(stream)
        if number == 0 and len(recorded.layout):  # it held the header, where there is one
            belief.know(recorded.layout)
    return planned


@pytest.mark.parametrize(
    ("loader", "requests", "waits", "share"),
    [
        ("load_file", 68, 3, 1.0),
        ("load_file_pread", 95, 3, 1.0),
        ("safe_open", 95, 3, 1.0),
        ("safe_open_shuffled", 140, 32, 1.0),
        ("slices", 100, 24, 1.05),
        ("two_ranks", 90, 8, 1.0),
        ("four_ranks", 125, 14, 1.0),
        ("torch_load", 74, 4, 1.0),
        ("torch_mmap", 75, 4, 1.0),
        ("memmap", 95, 3, 1.0),
        ("gguf", 68, 4, 1.0),
        ("threads8", 165, 25, 1.0),
        ("many", 95, 3, 1.0),
        ("many100", 175, 145, 1.09),
    ],
)
def test_a_loader_reads_what_few_requests_have_brought(
    loader: str, requests: int, waits: int, share: float
) -> None:
    """``requests`` for the 372 MiB of the recorded files: blocks of 8 MiB would be 47."""
    recorded = trace(loader)
    planned = replay(recorded)
    assert len(planned.spans) <= requests
    assert planned.waits <= waits
    assert planned.bytes <= share * recorded.read_bytes


def test_looks_at_tensors_that_begin_behind_the_edge_of_a_block_take_no_requests_of_their_own() -> (
    None
):
    """``load_file`` of 992 MiB, 124 blocks. The kernel asks for 1 MiB before each tensor, which is
    of the block before for 14 of them: 160 requests, when only the tensor's own block was fetched
    ahead.
    """
    recorded = trace("load_file_large")
    planned = replay(recorded)
    assert len(planned.spans) <= 145
    assert planned.waits <= 3
    assert planned.bytes <= recorded.file_size


@pytest.mark.parametrize(
    ("library", "requests", "waits", "share"),
    [
        ("comfyui_s_way", 10, 4, 1.0),
        ("datasets_arrow", 27, 3, 1.0),
        ("diffusers", 11, 3, 1.0),
        ("faiss_mapped", 28, 3, 1.0),
        ("fastsafetensors", 16, 3, 1.0),
        ("hdf5", 44, 8, 1.0),
        ("llama_cpp_s_way", 29, 3, 1.0),
        ("llama_cpp_s_way_no_mmap", 29, 3, 1.0),
        ("onnxruntime", 41, 10, 1.0),
        ("parquet_duckdb", 69, 38, 1.0),
        ("parquet_pyarrow", 44, 10, 1.0),
        ("parquet_two_columns", 60, 33, 1.05),
        ("runai_streamer", 20, 13, 1.0),
        ("sglang_s_way", 10, 4, 1.0),
        ("tarfile", 26, 3, 1.0),
        ("tensorizer", 32, 3, 1.0),
        ("tokenizers", 19, 3, 1.0),
        ("torch_dcp", 33, 5, 1.0),
        ("transformers", 10, 3, 1.0),
        ("vllm_s_way", 15, 3, 1.0),
        ("vllm_s_way_eager", 15, 3, 1.0),
        ("webdataset", 26, 3, 1.0),
        ("zarr", 3, 3, 1.0),
    ],
)
def test_a_library_reads_what_few_requests_have_brought(
    library: str, requests: int, waits: int, share: float
) -> None:
    """Files of 9 to 64 MiB; the largest of those that the library opens."""
    recorded = trace(library)
    planned = replay(recorded)
    assert len(planned.spans) <= requests
    assert planned.waits <= waits
    assert planned.bytes <= share * recorded.read_bytes


def test_a_loader_that_stops_after_some_looks_has_cost_a_bounded_number_of_bytes() -> None:
    recorded = trace("load_file")
    costs = [replay(recorded, upto=reads).bytes / MIB for reads in (1, 3, 5, 7)]
    assert costs[0] == 1
    assert costs[1] <= 3 + 28  # the first part that was begun, to its end
    assert costs[2] <= costs[1] + 2 * 8 + 3
    assert costs[3] <= costs[2] + 64 + 4 * 8


def test_of_a_file_larger_than_the_memory_only_what_is_looked_at_comes_before_it_is_read() -> None:
    """The kernel asks for 2 MiB around each look; whole blocks would be dropped before they are
    read."""
    recorded = trace("load_file")
    looks = 40
    planned = replay(recorded, room=64 * MIB, upto=looks)
    heads = [span for span in planned.spans if span.start >= 64 * MIB and span.size <= 2 * MIB]
    assert len(heads) >= 10
    assert planned.waits <= 6


def looked_at_and_read(size: int, each: int) -> Trace:
    """``load_file`` of tensors of ``each`` bytes, without what the kernel has already."""
    first, page = 20_000, 4096
    starts = range(first, size, each)
    looks = [
        (place, place + MIB)
        for start in starts[1:]
        for place in (start // page * page - MIB, start // page * page)
    ]
    reads = [(0, MIB), (MIB, 2 * MIB), *looks]
    for gap in ExtentSet(ByteRange(*read) for read in reads).gaps(0, size):
        reads += [(at, min(at + MIB, gap.end)) for at in range(gap.start, gap.end, MIB)]
    layout = Layout(tuple(starts), (*starts[1:], size))
    return Trace(size, layout, tuple((start, min(end, size)) for start, end in reads))


@pytest.mark.parametrize("each", [128 * MIB + 4096, 400 * MIB + 4096])
def test_a_file_of_six_times_the_memory_comes_in_whole_blocks_to_its_end(each: int) -> None:
    """3 GiB through 512 MiB, of which reading ahead leaves a quarter: 384 blocks, and two for each
    look. What was believed of large tensors ended with half of the file, and the other half came in
    requests of 2 MiB.
    """
    recorded = looked_at_and_read(3072 * MIB, each)
    planned = replay(recorded, room=384 * MIB)
    assert len(planned.spans) <= 384 + 3 * len(recorded.layout) + 24
    assert planned.bytes <= recorded.file_size
    assert planned.waits <= 6
