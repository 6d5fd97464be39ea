"""What is believed of a model file's reading."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import outcome

from ossfs_py.model import ObjectVersion
from ossfs_py.reading.chunks import ChunkIndex
from ossfs_py.reading.hints import ModelHints
from ossfs_py.reading.streams import MIB, Stream, StreamLimits
from ossfs_py.runtime.workers import Workers

TENSOR_BYTES = 32 * MIB
COUNT = 32


class AtOnce:
    """Workers that do it right away."""

    def submit(self, call: Callable[[], Any], done: Callable[..., None], *, urgent: bool) -> None:
        done(outcome.capture(call))


def known_model() -> tuple[ModelHints, list[int]]:
    """Hints for a file of 32 tensors, its header read; where the tensors begin."""
    header = json.dumps(
        {
            f"layer.{number:03}": {
                "dtype": "U8",
                "shape": [TENSOR_BYTES],
                "data_offsets": [number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES],
            }
            for number in range(COUNT)
        }
    ).encode()
    head = len(header).to_bytes(8, "little") + header
    size = len(head) + COUNT * TENSOR_BYTES
    version = ObjectVersion("m.safetensors", "e", size)
    hints = ModelHints(version, StreamLimits(), cast(Workers, AtOnce()), enabled=True)
    chunk = SimpleNamespace(
        ready=True,
        size=len(head),
        end=len(head),
        view=lambda start, end: memoryview(head)[start:end],
    )
    hints.learn(cast(ChunkIndex, SimpleNamespace(at=lambda offset: chunk)))
    return hints, [len(head) + number * TENSOR_BYTES for number in range(COUNT)]


def begun(hints: ModelHints, offset: int) -> Stream:
    """A reader's first MiB around a page fault at ``offset``."""
    start = offset // MIB * MIB - MIB
    stream = Stream(max(0, start), start + MIB, 0.0)
    hints.known_end(stream)
    return stream


def test_tensors_read_in_order_are_read_ahead_past_their_ends() -> None:
    """Two threads copy each tensor: one from its beginning, one from its middle."""
    hints, starts = known_model()
    head = Stream(0, MIB, 0.0)
    assert hints.known_end(head) is None
    for start in starts:
        middle = begun(hints, start + TENSOR_BYTES // 2)
        assert hints.known_end(middle) is None
        head.position = start + TENSOR_BYTES
        hints.known_end(head)


def test_a_tensor_read_out_of_order_is_read_ahead_to_its_end() -> None:
    hints, starts = known_model()
    hints.known_end(Stream(0, MIB, 0.0))
    for number in (17, 3, 30, 8):
        for offset in (starts[number], starts[number] + TENSOR_BYTES // 2):
            end = hints.known_end(begun(hints, offset))
            assert end is not None
            assert 0 <= end - (starts[number] + TENSOR_BYTES) < MIB


def test_order_is_found_again_after_a_jump() -> None:
    hints, starts = known_model()
    begun(hints, starts[20])
    ends = [hints.known_end(begun(hints, start)) for start in starts[4:9]]
    assert ends[0] is not None
    assert ends[-1] is None


def test_what_is_expected_never_lies_behind_the_file() -> None:
    hints, starts = known_model()
    begun(hints, starts[7])
    end = hints.known_end(begun(hints, starts[-1]))
    assert end == starts[-1] + TENSOR_BYTES


def test_looks_at_one_tensor_after_the_other_are_foreseen_and_no_habit_of_reading() -> None:
    """``load_file`` touches the first page of each tensor before anybody reads the tensors."""
    hints, starts = known_model()
    hints.known_end(Stream(0, MIB, 0.0))
    fetched: list[int] = []
    for number, start in enumerate(starts[1:6], 1):
        look = Stream(start // MIB * MIB - MIB, start // MIB * MIB, 0.0)
        for head in hints.heads(look):
            assert head.size == 2 * MIB
            fetched += [n for n, s in enumerate(starts) if head.start <= s < head.end]
        assert (hints.known_end(look) is None) == (number > 1)
    assert {4, 5, 6, 7} <= set(fetched)
    for start in starts[:4]:
        assert hints.known_end(begun(hints, start + TENSOR_BYTES // 2)) is None


def test_a_stream_that_goes_on_into_the_tensor_that_others_have_begun_is_read_ahead_there() -> None:
    """Two threads copy each tensor: one goes on where the one before ended, the other one begins
    in the middle. Until an order shows, what lies behind a tensor may be the kernel's overrun."""
    hints, starts = known_model()
    for look in starts[1:4]:
        hints.heads(Stream(look // MIB * MIB - MIB, look // MIB * MIB, 0.0))
    begun(hints, starts[9])  # nothing is in order yet
    stream = Stream(starts[4] + TENSOR_BYTES // 2, starts[4] + TENSOR_BYTES // 2 + MIB, 0.0)
    end = hints.known_end(stream)
    assert end is not None
    stream.position = end + MIB
    assert hints.known_end(stream) == end
    begun(hints, starts[5] + TENSOR_BYTES // 2)
    assert hints.known_end(stream) is None


def test_looks_at_tensors_that_are_expected_are_foreseen_from_the_first_one_on() -> None:
    hints, starts = known_model()
    assert not hints.looked
    first_look = Stream(starts[1] // MIB * MIB - MIB, starts[1] // MIB * MIB, 0.0)
    assert hints.heads(first_look) == []
    hints.heads(Stream(starts[2] // MIB * MIB - MIB, starts[2] // MIB * MIB, 0.0))
    assert hints.looked

    following, starts = known_model()
    following.expect_looks()
    heads = following.heads(first_look)
    assert all(any(h.start <= start < h.end for h in heads) for start in starts[2:10])
