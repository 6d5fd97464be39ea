"""Tables of contents: where they say the parts lie, and what becomes of those that lie."""

import json
import mmap
import struct
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.foresight.archive import TAIL_BYTES, ArchiveTable
from ossfs_py.foresight.formats import is_model, next_shard, opens_at_its_end, table_of
from ossfs_py.foresight.gguf import GgufTable
from ossfs_py.foresight.layout import MAX_PARTS, MAX_TABLE_BYTES, Index, Layout, TableError
from ossfs_py.foresight.onnx import OnnxTable
from ossfs_py.foresight.parquet import ParquetTable
from ossfs_py.foresight.safetensors import SafetensorsTable
from ossfs_py.foresight.tar import TarTable
from ossfs_py.model import ByteRange
from tests.support.file_formats import (
    all_of,
    archive,
    archive64,
    gguf,
    onnx,
    parquet,
    read_through,
    safetensors,
    sparse_tar,
    tar,
)

SUFFIXES = (".safetensors", ".pt", ".gguf", ".parquet", ".tar")
SAMPLES = {
    ".safetensors": safetensors({"a": (0, 10), "b": (10, 900)}, 900),
    ".pt": archive(5)[0],
    ".gguf": gguf([100, 200]),
    ".parquet": parquet([(4, 50), (50, 90), (90, 200)], 300),
    ".tar": tar([700, 20, 5000])[0],
}
MIB = 1024**2


# -- names ------------------------------------------------------------------------------------


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
    assert is_model("a/b/arrays.npz")
    assert not is_model("a/b/readme.md")


def test_a_file_is_looked_into_by_its_suffix() -> None:
    assert isinstance(table_of("a/b.safetensors", 100), SafetensorsTable)
    assert isinstance(table_of("b.npz", 100), ArchiveTable)
    assert isinstance(table_of("b.gguf", 100), GgufTable)
    assert isinstance(table_of("b.parquet", 100), ParquetTable)
    assert isinstance(table_of("b.onnx", 100), OnnxTable)
    assert isinstance(table_of("b.nemo", 1000), TarTable)
    assert table_of("a.pt/readme", 100) is None
    assert table_of("noext", 100) is None
    assert table_of("empty.safetensors", 0) is None


def test_only_of_checkpoints_the_end_is_asked_for_with_the_beginning() -> None:
    assert opens_at_its_end("model.pt")
    assert not opens_at_its_end("arrays.npz")
    assert not opens_at_its_end("rows.parquet")


# -- layouts ----------------------------------------------------------------------------------


def test_a_layout_tells_parts_by_place() -> None:
    layout = Layout((10, 30, 60), (30, 50, 90))
    assert len(layout) == 3
    assert layout.number_at(29) == 0
    assert layout.number_at(30) == 1
    assert layout.number_at(55) is None
    assert layout.number_at(9) is None
    assert layout.begins_in(11, 31) == 1
    assert layout.begins_in(11, 30) is None
    assert layout.first_from(31) == 2
    assert layout.first_from(61) is None
    assert layout.part(2) == ByteRange(60, 90)


# -- safetensors ------------------------------------------------------------------------------


def test_a_safetensors_header_tells_its_tensors_in_the_order_of_the_file() -> None:
    content = safetensors({"b": (10, 30), "none": (10, 10), "a": (0, 10)}, 30)
    layout = read_through(SafetensorsTable(len(content)), content)
    base = len(content) - 30
    assert layout == Layout((base, base + 10), (base + 10, base + 30))


def test_the_length_of_a_header_comes_first_and_the_header_when_it_is_there() -> None:
    content = safetensors({"a": (0, 10)}, 10)
    table = SafetensorsTable(len(content))
    assert table.wants == ByteRange(0, 8)
    assert table.take(content[:8]) is None
    assert table.wants == ByteRange(8, len(content) - 10)


@pytest.mark.parametrize(
    "spans",
    [{"a": (0, 10), "b": (5, 15)}, {"a": (0, 10**9)}, {"a": (10, 5)}, {}, {"a": (0, 10**17)}],
)
def test_a_safetensors_header_that_lies_is_refused(spans: dict[str, tuple[int, int]]) -> None:
    content = safetensors(spans, 1000)
    with pytest.raises(TableError):
        read_through(SafetensorsTable(len(content)), content)


def test_a_header_that_names_a_tensor_twice_is_refused_when_the_places_overlap() -> None:
    text = b'{"a":{"data_offsets":[0,9]},"a":{"data_offsets":[0,8]}}'
    content = len(text).to_bytes(8, "little") + text + bytes(9)
    with pytest.raises(TableError):
        read_through(SafetensorsTable(len(content)), content)


@pytest.mark.parametrize(
    ("length", "size"), [(1000, 500), (2**63, 2**40), (1, 500), (100 * 1024**2, 2**40)]
)
def test_a_header_longer_than_the_file_or_the_bound_is_never_asked_for(
    length: int, size: int
) -> None:
    table = SafetensorsTable(size)
    with pytest.raises(TableError):
        table.take(struct.pack("<Q", length))
    assert table.wants is None


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 4_000_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"{" + b"{}," * 4_000_000,
        b"{" + b'"data_offsets"' * 300_000,
        b"{" + b'"data_offsets":' + b" " * 4_000_000,
        b"{" + b'"data_offsets":[' + b"9" * 4_000_000,
        b"{" + b'{"data_offsets":[0,1]},' * (MAX_PARTS + 1),
    ],
    ids=["nested", "nested objects", "many", "names", "spaces", "digits", "parts"],
)
def test_a_monstrous_header_takes_no_longer_than_it_is_large(text: bytes) -> None:
    content = len(text).to_bytes(8, "little") + text
    began = time.process_time()
    with pytest.raises(TableError):
        read_through(SafetensorsTable(len(content)), content)
    assert time.process_time() - began < 2


# -- archives ---------------------------------------------------------------------------------


def test_the_end_of_an_archive_tells_where_its_records_begin() -> None:
    content, starts = archive(20)
    layout = read_through(ArchiveTable(len(content)), content)
    assert layout is not None
    assert list(layout.starts) == starts
    assert layout.part(3) == ByteRange(starts[3], starts[4])


@pytest.mark.parametrize("comment", [b"c" * 65_535, b"PK\5\6" + b"c" * 30, b"x"])
def test_an_archive_with_a_comment_is_understood(comment: bytes) -> None:
    content, starts = archive(20, comment=comment)
    layout = read_through(ArchiveTable(len(content)), content)
    assert layout is not None
    assert list(layout.starts) == starts


def test_an_archive_with_zip64_places_is_understood() -> None:
    content = archive64(20, 1000)
    layout = read_through(ArchiveTable(len(content)), content)
    assert layout is not None
    assert list(layout.starts) == archive(20)[1]


def test_an_archive_behind_other_bytes_is_found() -> None:
    content, starts = archive(3)
    content = bytes(5000) + content
    layout = read_through(ArchiveTable(len(content)), content)
    assert layout is not None
    assert list(layout.starts) == [5000 + start for start in starts]


def test_a_long_directory_is_asked_for_in_a_second_step() -> None:
    content, starts = archive(5000, size=1)
    table = ArchiveTable(len(content))
    assert table.wants is not None
    assert table.wants.size == TAIL_BYTES
    layout = read_through(table, content)
    assert layout is not None
    assert list(layout.starts) == starts


def test_a_directory_that_claims_gigabytes_is_refused() -> None:
    content, _ = archive(3)
    end = content.rindex(b"PK\5\6")
    lying = bytearray(content)
    struct.pack_into("<2L", lying, end + 12, 2**32 - 1, 0)
    with pytest.raises(TableError):
        read_through(ArchiveTable(len(lying)), bytes(lying))


# -- gguf -------------------------------------------------------------------------------------


def test_a_gguf_table_tells_its_tensors_behind_a_long_vocabulary() -> None:
    content = gguf([100, 64, 1000], words=30_000)
    layout = read_through(GgufTable(len(content)), content)
    assert layout is not None
    assert [end - start for start, end in zip(layout.starts, layout.ends, strict=True)] == [
        128,
        64,
        1024,
    ]
    assert layout.ends[-1] == len(content)


def test_a_gguf_file_that_claims_endless_arrays_is_refused() -> None:
    for element, count in ((8, 2**40), (9, 3), (0, 2**60), (77, 1)):
        head = b"GGUF" + struct.pack("<I2QQ", 3, 1, 1, 1) + b"k"
        content = head + struct.pack("<2IQ", 9, element, count) + bytes(1000)
        with pytest.raises(TableError):
            read_through(GgufTable(len(content)), content)


# -- parquet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 40])
def test_a_parquet_footer_tells_its_column_chunks(groups: int) -> None:
    chunks = [(4 + n * 10, 14 + n * 10) for n in range(2 * groups)]
    content = parquet(chunks, 2000)
    layout = read_through(ParquetTable(len(content)), content)
    assert layout == Layout(tuple(s for s, _ in chunks), tuple(e for _, e in chunks))


def test_a_long_footer_is_asked_for_in_a_second_step() -> None:
    chunks = [(4 + n, 5 + n) for n in range(8000)]
    content = parquet(chunks, 10_000, columns=100)
    layout = read_through(ParquetTable(len(content)), content)
    assert layout is not None
    assert len(layout) == 8000


def test_a_footer_nested_without_end_is_refused() -> None:
    footer = b"\x1c" * 100_000
    content = b"PAR1" + footer + struct.pack("<L", len(footer)) + b"PAR1"
    with pytest.raises(TableError):
        read_through(ParquetTable(len(content)), content)


def test_columns_that_lie_in_the_footer_are_refused() -> None:
    content = parquet([(4, 5000)], 300)
    with pytest.raises(TableError):
        read_through(ParquetTable(len(content)), content)


# -- onnx -------------------------------------------------------------------------------------


def test_an_onnx_model_tells_where_its_weights_lie_in_other_files() -> None:
    places = [("w.bin", 64, 36), ("w.bin", 0, 64), ("./more/x", 0, 9), ("w.bin", 64, 36)]
    content = onnx(places, nodes=2000)
    found = all_of(OnnxTable(len(content)), content)
    assert found == Index({"w.bin": ((0, 64), (64, 100)), "more/x": ((0, 9),)})


def test_an_onnx_model_that_holds_its_weights_tells_nothing() -> None:
    content = onnx([])
    with pytest.raises(TableError):
        all_of(OnnxTable(len(content)), content)
    assert OnnxTable(MAX_TABLE_BYTES + 1).wants is None


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "x/../../w.bin"])
def test_weights_outside_the_directory_of_the_model_are_refused(location: str) -> None:
    content = onnx([(location, 0, 5)])
    with pytest.raises(TableError):
        all_of(OnnxTable(len(content)), content)


def test_places_that_are_no_numbers_are_refused() -> None:
    for old, new in ((b"12345", b"-1234"), (b"12345", b"1e999"), (b"12345", "1²3".encode() + b"0")):
        content = onnx([("w", 12345, 5)]).replace(old, new)
        with pytest.raises(TableError):
            all_of(OnnxTable(len(content)), content)


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\x80\x80\x80\x08" + b"\x2a\x00" * 4_000_000,
        b"\x3a" + b"\x80" * 4_000_000,
        b"\x3a\x7f" * 4_000_000,
        b"\x08\x01" * 4_000_000,
        b"\x0b" * 4_000_000,
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ],
    ids=["initializers", "length", "nested", "fields", "groups", "behind"],
)
def test_a_monstrous_onnx_model_takes_bounded_time(content: bytes) -> None:
    began = time.process_time()
    with pytest.raises(TableError):
        all_of(OnnxTable(len(content)), content)
    assert time.process_time() - began < 5


# -- tar --------------------------------------------------------------------------------------


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["member{}", "länger-" * 12 + "{}"])
def test_a_tar_archive_tells_its_members_with_what_describes_them(form: int, name: str) -> None:
    content, starts = tar([700, 0, 512, 5000], names=name, form=form)
    layout = read_through(TarTable(len(content)), content)
    assert layout is not None
    assert layout.is_walked
    assert list(layout.starts) == starts
    assert layout.ends[:-1] == layout.starts[1:]
    assert content[layout.ends[-1] :].strip(b"\0") == b""


def test_the_layout_of_a_tar_archive_grows_with_its_headers(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    starts = sparse_tar(path, [10 * MIB] * 12)
    with mapped(path) as content:
        table, layouts = TarTable(len(content)), []
        while table.wants is not None:
            found = table.take(content[table.wants.start : table.wants.end])
            layouts.append(found)
        assert layouts[:7] == [None] * 7
        assert layouts[7] is not None
        assert len(layouts[7]) == 9  # the last one is what was not looked at yet
        assert layouts[7].part(8) == ByteRange(starts[8], len(content))
        last = layouts[-1]
        assert last is not None
        assert list(last.starts) == starts


def test_a_member_of_more_than_8_gib_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "huge.tar"
    starts = sparse_tar(path, [9 << 30, 10])
    with mapped(path) as content:
        layout = read_through(TarTable(len(content)), content)
        assert layout is not None
        assert list(layout.starts) == starts


def test_a_size_in_a_pax_record_counts(tmp_path: Path) -> None:
    content, starts = tar([600, 10])
    said = tarfile.TarInfo("x")
    said.type = b"x"
    record = b"13 size=600\n\n"[:12]
    said.size = len(record)
    lying = bytearray(content[:1536])
    member = tarfile.TarInfo("member0")
    lying[:512] = member.tobuf(tarfile.USTAR_FORMAT)  # it says that it is empty
    whole = said.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + lying + content[1536:]
    layout = read_through(TarTable(len(whole)), whole)
    assert layout is not None
    assert list(layout.starts) == [0, starts[1] + 1024]


def test_a_tar_archive_without_an_end_is_known_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "endless.tar"
    starts = sparse_tar(path, [10 * MIB] * 9, end_bytes=0)
    with mapped(path) as content:
        layout = read_through(TarTable(len(content)), content)
        assert layout is not None
        assert list(layout.starts) == starts
        assert layout.ends[-1] == len(content)


def test_a_tar_archive_that_ends_inside_a_member_is_refused_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    sparse_tar(path, [10 * MIB] * 10, end_bytes=-MIB)
    with mapped(path) as content:
        table, known = TarTable(len(content)), []
        with pytest.raises(TableError):
            while table.wants is not None:
                known.append(table.take(content[table.wants.start : table.wants.end]))
        assert known[-1] is not None
        assert len(known[-1]) == 10


@pytest.mark.parametrize(
    "content",
    [
        tar([100] * 5000)[0],
        tar([0] * 20_000)[0],
        tar([10])[0][:512].replace(b"\0" * 12, b"\0" * 12) * 3000,
        tarfile.TarInfo("x").tobuf().replace(b"ustar", b"USTAR") * 10,
        bytes(511),
        b"x" * 5000,
    ],
    ids=["small members", "empty members", "headers", "no magic", "short", "no tar"],
)
def test_an_archive_of_small_members_or_none_is_not_followed(content: bytes) -> None:
    table, steps = TarTable(len(content)), 0
    try:
        while table.wants is not None:
            steps += 1
            assert table.take(content[table.wants.start : table.wants.end]) is None
    except TableError:
        pass
    assert steps <= 32


def test_a_tar_archive_of_descriptions_without_members_is_not_followed() -> None:
    said = tarfile.TarInfo("x")
    said.type = b"x"
    content = said.tobuf(tarfile.USTAR_FORMAT) * 10_000
    table, steps = TarTable(len(content)), 0
    with pytest.raises(TableError):
        while table.wants is not None:
            steps += 1
            table.take(content[table.wants.start : table.wants.end])
    assert steps <= 40


# -- whatever comes ---------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SUFFIXES), st.data())
def test_a_damaged_file_gives_a_layout_inside_it_or_a_table_error(
    suffix: str, data: st.DataObject
) -> None:
    damaged = bytearray(SAMPLES[suffix])
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    content = bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    table = table_of("x" + suffix, len(content))
    assert table is not None
    try:
        layout = read_through(table, content)
    except TableError:
        return
    if layout is None:
        assert suffix == ".tar"  # shorter than a header
        return
    assert json.dumps(layout.starts)
    position = 0
    for start, end in zip(layout.starts, layout.ends, strict=True):
        assert position <= start < end <= len(content)
        position = end
