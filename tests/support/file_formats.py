"""Files of each format, and their tables read as a mount reads them."""

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ossfs_py.foresight.layout import MAX_TABLE_BYTES, Index, Layout, Table


def read_through(table: Table, content: bytes) -> Layout | None:
    """The layout that is known in the end, from as many steps as the table takes."""
    found = all_of(table, content)
    assert not isinstance(found, Index)
    return found


def all_of(table: Table, content: bytes) -> Layout | Index | None:
    """The last thing that a table tells."""
    last: Layout | Index | None = None
    while table.wants is not None:
        wants = table.wants
        assert 0 <= wants.start < wants.end <= len(content)
        assert wants.size <= MAX_TABLE_BYTES
        last = table.take(content[wants.start : wants.end]) or last
    return last


def safetensors(spans: dict[str, tuple[int, int]], size: int) -> bytes:
    """A file whose header names tensors at ``spans`` of the ``size`` bytes behind it."""
    text = json.dumps(
        {
            "__metadata__": {"note": 'a "data_offsets":[0,1] of no tensor'},
            **{
                name: {"dtype": "U8", "shape": [1], "data_offsets": span}
                for name, span in spans.items()
            },
        }
    ).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def archive(records: int, size: int = 1000, comment: bytes = b"") -> tuple[bytes, list[int]]:
    """A zip archive as torch.save writes it, and where its records begin."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as writer:
        for number in range(records):
            writer.writestr(f"archive/data/{number}", bytes(size))
        writer.comment = comment
        starts = [info.header_offset for info in writer.infolist()]
    return out.getvalue(), starts


def archive64(records: int, size: int) -> bytes:
    """The same with every place in zip64 fields, as in an archive of more than 4 GiB."""
    content, starts = archive(records, size)
    directory_at = content.rindex(b"PK\5\6")
    directory_at = struct.unpack_from("<L", content, directory_at + 16)[0]
    entries = b""
    for number, start in enumerate(starts):
        name = f"archive/data/{number}".encode()
        extra = struct.pack("<2H3Q", 1, 24, size, size, start)
        fields = (b"PK\1\2", 45, 3, 45, 0, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
        entries += struct.pack("<4s4B4HL2L", *fields)
        entries += struct.pack("<5H2L", len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
        entries += name + extra
    end64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, records, records, len(entries), directory_at
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, directory_at + len(entries), 1)
    full = (0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return (
        content[:directory_at]
        + entries
        + end64
        + locator
        + struct.pack("<4s4H2LH", b"PK\5\6", *full)
    )


def gguf(tensor_bytes: Sequence[int], words: int = 10) -> bytes:
    """A GGUF file with a vocabulary of ``words`` and one-dimensional tensors of bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<I2Q", 3, len(tensor_bytes), 4)
    head += text("general.alignment") + struct.pack("<2I", 4, 64)
    head += text("a.float") + struct.pack("<If", 6, 1.5)
    head += text("a.numbers") + struct.pack("<2IQ3H", 9, 2, 3, 1, 2, 3)
    head += text("tokenizer.tokens") + struct.pack("<2IQ", 9, 8, words)
    head += b"".join(text(f"word{number}") for number in range(words))
    offset = 0
    for number, size in enumerate(tensor_bytes):
        head += text(f"blk.{number}.weight") + struct.pack("<IQIQ", 1, size, 24, offset)
        offset += -(-size // 64) * 64
    return head + bytes(-len(head) % 64) + bytes(offset)


def parquet(chunks: Sequence[tuple[int, int]], size: int, columns: int = 2) -> bytes:
    """A Parquet file with column chunks at ``(start, end)``, ``columns`` to each row group."""

    def i64(value: int) -> bytes:
        return _varint(value << 1)

    def column(start: int, end: int) -> bytes:
        metadata = b"\x15\x02" + b"\x19\x25\x00\x06" + b"\x19\x18" + _varint(1) + b"x"
        metadata += b"\x15\x00" + b"\x16" + i64(9) + b"\x16" + i64(end - start) + b"\x16"
        metadata += i64(end - start) + b"\x26" + i64(start) + b"\x00"
        return b"\x26" + i64(start) + b"\x1c" + metadata + b"\x00"

    groups = [chunks[at : at + columns] for at in range(0, len(chunks), columns)]
    footer = b"\x15\x02" + b"\x19\x1c" + b"\x48\x06schema" + b"\x15\x04" + b"\x00"
    footer += b"\x16" + i64(7) + b"\x19" + _list_of_structures(len(groups))
    for group in groups:
        footer += b"\x19" + _list_of_structures(len(group))
        footer += b"".join(column(*chunk) for chunk in group)
        footer += b"\x16" + i64(5) + b"\x00"
    footer += b"\x28\x04test" + b"\x00"
    return b"PAR1" + bytes(size - 4) + footer + struct.pack("<L", len(footer)) + b"PAR1"


def onnx(places: Iterable[tuple[str, int, int]], nodes: int = 3) -> bytes:
    """A model with an initializer at each ``(file, offset, length)``, and one of its own."""

    def text(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    def tensor(name: str, place: tuple[str, int, int]) -> bytes:
        location, offset, length = place
        said = {"location": location, "offset": str(offset), "length": str(length)}
        entries = (text(1, key.encode()) + text(2, value.encode()) for key, value in said.items())
        return (
            b"\x08\x04\x10\x01"  # dims, data_type
            + text(8, name.encode())
            + b"".join(text(13, entry) for entry in entries)
            + b"\x70\x01"  # data_location: EXTERNAL
        )

    graph = b"".join(text(1, text(4, b"MatMul") + text(1, b"x")) for _ in range(nodes))
    graph += text(2, b"graph") + text(5, text(8, b"small") + text(9, bytes(64)))
    graph += b"".join(text(5, tensor(f"w{n}", place)) for n, place in enumerate(places))
    return b"\x08\x09" + text(2, b"test") + text(7, graph) + text(8, b"\x10\x15")


def tar(
    sizes: Sequence[int], *, names: str = "member{}", form: int = tarfile.PAX_FORMAT
) -> tuple[bytes, list[int]]:
    """A tar archive of members of ``sizes`` bytes, and where each begins."""
    out, starts = io.BytesIO(), []
    with tarfile.open(fileobj=out, mode="w", format=form) as writer:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(names.format(number))
            member.size = size
            starts.append(out.tell())
            writer.addfile(member, io.BytesIO(bytes(size)))
    return out.getvalue(), starts


def sparse_tar(
    path: Path, sizes: Sequence[int], form: int = tarfile.GNU_FORMAT, end_bytes: int = 1024
) -> list[int]:
    """The same as a sparse file, for large members; ``end_bytes`` of zeros end it."""
    starts, at = [], 0
    with path.open("wb") as file:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(f"member{number}")
            member.size = size
            starts.append(at)
            file.seek(at)
            file.write(member.tobuf(form))
            at = file.tell() + -(-size // 512) * 512
        file.truncate(at + end_bytes)
    return starts


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _list_of_structures(count: int) -> bytes:
    return bytes([count << 4 | 12]) if count < 15 else bytes([0xFC, count])
