"""The bytes of the protocol, checked against libc's own idea of a struct and against odd input."""

import ctypes
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.filesystem.replies import EntryReply, OpenReply
from ossfs_py.fuse import wire
from ossfs_py.model import AttributeChange, Attributes

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
TIME = st.integers(-(2**62), 2**62)
SECONDS = st.floats(allow_nan=False, min_value=-1.0)


class Attr(ctypes.Structure):
    """struct fuse_attr, laid out by the C rules."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("ino", "size", "blocks")),
        *((name, ctypes.c_int64) for name in ("atime", "mtime", "ctime")),
        *((name, ctypes.c_uint32) for name in ("atimensec", "mtimensec", "ctimensec", "mode")),
        *((name, ctypes.c_uint32) for name in ("nlink", "uid", "gid", "rdev", "blksize", "flags")),
    )


class Entry(ctypes.Structure):
    """struct fuse_entry_out."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("node", "generation", "entry_s", "attr_s")),
        *((name, ctypes.c_uint32) for name in ("entry_ns", "attr_ns")),
        ("attr", Attr),
    )


ATTRIBUTES = st.builds(
    Attributes,
    ino=U64,
    mode=U32,
    size=st.integers(0, 2**63 - 1),
    uid=U32,
    gid=U32,
    atime_ns=TIME,
    mtime_ns=TIME,
    ctime_ns=TIME,
    nlink=U32,
)
REPLIES = st.builds(EntryReply, ATTRIBUTES, SECONDS, SECONDS, U64)


def same(entry: Entry, reply: EntryReply) -> bool:
    shown, attr = reply.attributes, entry.attr
    times = (
        (attr.atime, attr.atimensec),
        (attr.mtime, attr.mtimensec),
        (attr.ctime, attr.ctimensec),
    )
    return (
        (entry.node, entry.generation) == (shown.ino, reply.generation)
        and (attr.ino, attr.size, attr.mode) == (shown.ino, shown.size, shown.mode)
        and (attr.nlink, attr.uid, attr.gid) == (shown.nlink, shown.uid, shown.gid)
        and attr.blocks * 512 - attr.size in range(512)
        and [s * 10**9 + ns for s, ns in times] == [shown.atime_ns, shown.mtime_ns, shown.ctime_ns]
        and all(ns < 10**9 for ns in (entry.entry_ns, entry.attr_ns))
        and entry.entry_s + entry.entry_ns / 1e9 <= max(0.0, reply.name_seconds)
        and entry.attr_s + entry.attr_ns / 1e9 <= max(0.0, reply.attributes_seconds)
    )


@given(U64, REPLIES)
def test_the_kernel_is_told_what_an_inode_is_like(unique: int, reply: EntryReply) -> None:
    answer = wire.entry(unique, reply, 4096)
    assert struct.unpack_from("=IiQ", answer) == (len(answer), 0, unique)
    assert len(answer) == 16 + ctypes.sizeof(Entry) == 144
    entry = Entry.from_buffer_copy(answer, 16)
    assert same(entry, reply)
    shown = wire.attributes(unique, reply, 4096)
    assert struct.unpack_from("=IiQ", shown) == (16 + 104, 0, unique)
    assert shown[32:] == bytes(entry.attr)


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=255), REPLIES), max_size=8),
    st.integers(0, 2000),
)
def test_a_listing_holds_whole_entries_and_no_more_than_there_is_room(
    listed: list[tuple[bytes, EntryReply]], room: int
) -> None:
    answer = wire.DirectoryAnswer(room, 4096)
    taken = 0
    for number, (name, reply) in enumerate(listed):
        if not answer(name, reply, number + 1):
            break
        taken += 1
    data = answer.answer(5)[16:]
    assert len(data) <= room
    for number, (name, reply) in enumerate(listed[:taken]):
        assert same(Entry.from_buffer_copy(data), reply)
        ino, following, length, kind = struct.unpack_from("=QQII", data, 128)
        assert (ino, following, length) == (reply.attributes.ino, number + 1, len(name))
        assert kind == reply.attributes.mode >> 12 & 15
        assert data[152 : 152 + length] == name
        data = data[152 + length + -length % 8 :]
    assert not data


@given(
    REPLIES,
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=255), U64, U64, st.integers(0, 2**62), U64),
        max_size=8,
    ),
    st.integers(0, 2000),
)
def test_files_taken_together_look_as_if_taken_one_by_one(
    like: EntryReply, listed: list[tuple[bytes, int, int, int, int]], room: int
) -> None:
    together, singly = wire.DirectoryAnswer(room, 4096), wire.DirectoryAnswer(room, 4096)
    names = [name for name, *_ in listed]
    count = together.count_fitting(names)
    told = [tuple(facts) for _name, *facts in listed[:count]]
    together.take_files(like, names, told, 5)
    for offset, (name, ino, generation, size, mtime_ns) in enumerate(listed, 5):
        shown = like.attributes._replace(
            ino=ino, size=size, atime_ns=mtime_ns, mtime_ns=mtime_ns, ctime_ns=mtime_ns
        )
        reply = like._replace(attributes=shown, generation=generation)
        if not singly(name, reply, offset):
            break
    assert together.answer(3) == singly.answer(3)


@given(SECONDS)
def test_an_absent_name_has_no_inode(seconds: float) -> None:
    entry = Entry.from_buffer_copy(wire.absent(9, seconds), 16)
    assert (entry.node, bytes(entry.attr)) == (0, bytes(ctypes.sizeof(Attr)))
    assert entry.entry_s + entry.entry_ns / 1e9 <= max(0.0, seconds)


@given(st.lists(st.tuples(U64, U64), max_size=20), st.integers(0, 400))
def test_forgets_are_read_as_far_as_they_go_or_refused(
    pairs: list[tuple[int, int]], cut: int
) -> None:
    request = bytes(40) + struct.pack("=II", len(pairs), 0)
    request += b"".join(struct.pack("=QQ", *pair) for pair in pairs)
    assert wire.forgotten(memoryview(request)) == pairs
    if cut < len(request):
        with pytest.raises(struct.error):
            wire.forgotten(memoryview(request)[:cut])


@given(st.binary(max_size=64))
def test_a_name_ends_with_its_zero_byte_or_is_none(data: bytes) -> None:
    request = bytes(40) + data
    if b"\0" in data and data[0]:
        assert wire.name_at(request, 40, len(request)) == data[: data.index(b"\0")]
    else:
        with pytest.raises(ValueError, match="without a name"):
            wire.name_at(request, 40, len(request))


def test_what_a_setattr_asks_for_is_all_that_it_marks() -> None:
    def request(marked: int) -> bytes:
        numbers = (3, 4096, 0, -5, 8, 9, 100, 200, 300, 0o104755, 0, 11, 12, 0)
        return bytes(40) + struct.pack("=IIQQQqqqIIIIIIII", marked, 0, *numbers)

    nothing = AttributeChange()
    assert wire.wish(request(0)) == (nothing, None, None, False)
    assert wire.wish(request(1 << 3 | 1 << 6)) == (nothing, 4096, 3, False)
    everything = AttributeChange(0o4755, 11, 12, -5 * 10**9 + 100, 8 * 10**9 + 200)
    assert wire.wish(request(0b110111)) == (everything, None, None, False)
    before = time.time_ns()
    now = wire.wish(request(1 << 4 | 1 << 5 | 1 << 7 | 1 << 8)).change
    for moment in (now.atime_ns, now.mtime_ns):
        assert moment is not None
        assert before <= moment <= time.time_ns()
    assert wire.wish(request(1 << 11)).kills
    assert not wire.wish(request(1 << 11 | 1)).kills
    with pytest.raises(struct.error):
        wire.wish(request(0)[:-1])


def test_init_is_changed_only_where_pages_can_be_told() -> None:
    told = struct.pack("=IIIIHHIIHHI", 7, 38, 131072, 1 << 22, 12, 9, 1 << 20, 1, 256, 0, 0)
    answer = struct.pack("=IiQ", 16 + 64, 0, 2) + told + bytes(64 - len(told))
    longer = wire.with_longer_requests(answer, 1024, 4096)
    assert wire.longest_write(answer) == 1 << 20
    assert wire.longest_write(longer) == 4 << 20
    assert struct.unpack_from("=H", longer, 16 + 28) == (1024,)
    assert len(longer) == len(answer)
    queued = wire.with_longer_queue(answer, 128, 96)
    assert struct.unpack_from("=HH", queued, 32) == (128, 96)
    assert (queued[:32], queued[36:]) == (answer[:32], answer[36:])
    old = answer[:28] + bytes(4) + answer[32:]
    assert wire.with_longer_requests(old, 1024, 4096) == old
    request = bytes(40) + struct.pack("=IIII", 7, 45, 0, 0)
    assert wire.minor_of_init(request) == 45
    assert wire.minor_of_init(bytes(40) + struct.pack("=IIII", 8, 45, 0, 0)) == 0


def test_the_kernel_is_told_what_to_forget() -> None:
    assert wire.forget_pages(7) == struct.pack("=IiQQqq", 40, 2, 0, 7, 0, 0)
    assert wire.forget_attributes(7) == struct.pack("=IiQQqq", 40, 2, 0, 7, -1, 0)
    assert wire.forget_name(7, b"abc") == struct.pack("=IiQQII", 36, 3, 0, 7, 3, 0) + b"abc\0"


# -- local files ---------------------------------------------------------------------------------

INIT_ANSWER = struct.pack(
    "=IiQIIIIHHIIHHII24x", 80, 0, 2, 7, 38, 131072, 1 << 22, 12, 9, 2**20, 1, 256, 0, 0, 0
)


@pytest.mark.parametrize(
    ("flags", "more", "offers"),
    [(1 << 30, 1 << 5, True), (0, 1 << 5, False), (1 << 30, 1 << 7, False)],
)
def test_a_kernel_offers_to_read_local_files_by_one_flag(
    flags: int, more: int, *, offers: bool
) -> None:
    request = bytes(wire.HEADER.size) + struct.pack("=IIIII44x", 7, 40, 0, flags, more)
    assert wire.offers_passthrough(request) is offers


def test_an_init_without_more_flags_offers_nothing() -> None:
    request = bytes(wire.HEADER.size) + struct.pack("=IIII", 7, 31, 0, 1 << 30)
    assert not wire.offers_passthrough(request)


def test_the_answer_that_lets_it_changes_three_fields_and_no_length() -> None:
    told = wire.with_passthrough(INIT_ANSWER)
    assert len(told) == len(INIT_ANSWER)
    before = struct.unpack("=IiQIIIIHHIIHHII24x", INIT_ANSWER)
    after = struct.unpack("=IiQIIIIHHIIHHII24x", told)
    changed = {n: (a, b) for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    assert changed == {6: (1 << 22, 1 << 22 | 1 << 30), 13: (0, 1 << 5), 14: (0, 1)}


def test_open_is_answered_with_the_number_of_a_local_file() -> None:
    layout = "=IiQQIi"
    asks = wire.opened(9, OpenReply(7, keep_cache=True, past_pages=False), no_flush=True)
    assert struct.unpack(layout, asks) == (32, 0, 9, 7, 1 << 1 | 1 << 5, 0)
    local = wire.opened(9, OpenReply(7, keep_cache=False, past_pages=False, local=3), no_flush=True)
    assert struct.unpack(layout, local) == (32, 0, 9, 7, 1 << 7 | 1 << 5, 3)
    direct = wire.opened(9, OpenReply(7, keep_cache=False, past_pages=True, local=3), no_flush=True)
    assert struct.unpack(layout, direct) == (32, 0, 9, 7, 1 << 7 | 1 << 5 | 1, 3)
