"""What is believed of model files."""

import io
import json
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.model import ByteRange
from ossfs_py.reading.models import (
    header_size,
    is_model,
    next_shard,
    parse_archive,
    parse_layout,
)


def header(**tensors: tuple[int, int]) -> bytes:
    return json.dumps(
        {
            name: {"dtype": "U8", "shape": [1], "data_offsets": span}
            for name, span in tensors.items()
        }
    ).encode()


@pytest.mark.parametrize(
    ("name", "following"),
    [
        ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"),
        ("pytorch_model-00009-of-00010.bin", "pytorch_model-00010-of-00010.bin"),
        ("model-00003-of-00003.safetensors", None),
        ("model.safetensors", None),
        ("notes-00001-of-00003.txt", None),
    ],
)
def test_next_shard_follows_the_numbering(name: str, following: str | None) -> None:
    assert next_shard(name) == following


def test_model_files_are_known_by_their_suffix() -> None:
    assert is_model("a/b/model.safetensors")
    assert not is_model("a/b/readme.md")


def test_layout_tells_the_tensor_at_an_offset() -> None:
    text = header(a=(0, 10), b=(10, 30))
    base = 8 + len(text)
    layout = parse_layout(text, base + 30)
    assert layout.span_at(base + 12) == ByteRange(base + 10, base + 30)
    assert layout.span_at(4) is None
    assert layout.span_at(base + 30) is None


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"data_offsets": [0, "1"]}}',
        header(a=(0, 10), b=(5, 15)),
        header(a=(0, 10**9)),
        header(a=(10, 5)),
        b"[" * 100_000,
    ],
)
def test_a_header_that_lies_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_layout(text, 1000 + len(text))


def test_a_header_longer_than_the_file_is_none() -> None:
    assert header_size(struct.pack("<Q", 1000), 500) is None
    assert header_size(struct.pack("<Q", 2**63), 2**40) is None
    assert header_size(struct.pack("<Q", 100), 500) == 100


@given(st.binary(max_size=300), st.integers(0, 2**50))
def test_any_bytes_give_a_layout_or_a_value_error(data: bytes, size: int) -> None:
    try:
        parse_layout(data, size)
    except ValueError:
        return


def archive(records: int, size: int = 1000) -> tuple[bytes, list[int]]:
    """A zip archive as torch.save writes it, and where its records begin."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as writer:
        for number in range(records):
            writer.writestr(f"archive/data/{number}", bytes(size))
        starts = [info.header_offset for info in writer.infolist()]
    return out.getvalue(), starts


def test_the_end_of_an_archive_tells_where_its_records_begin() -> None:
    content, starts = archive(20)
    layout = parse_archive(content[-4000:], len(content))
    assert list(layout.starts) == starts
    assert layout.span_at(starts[3] + 500) == ByteRange(starts[3], starts[4])
    assert layout.begins_in(starts[3] - 10, starts[3] + 1) == 3
    assert layout.begins_in(starts[3] + 1, starts[4]) is None


def test_an_archive_whose_directory_is_not_at_hand_is_refused() -> None:
    content, _ = archive(100)
    with pytest.raises(ValueError):
        parse_archive(content[-500:], len(content))


@given(st.data())
def test_a_damaged_archive_gives_a_layout_inside_the_file_or_a_value_error(
    data: st.DataObject,
) -> None:
    content, _ = archive(5)
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(len(damaged) - 400, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    tail = bytes(damaged[-data.draw(st.integers(1, 600)) :])
    try:
        layout = parse_archive(tail, len(content))
    except ValueError:
        return
    assert all(
        0 <= start < end <= len(content)
        for start, end in zip(layout.starts, layout.ends, strict=True)
    )
