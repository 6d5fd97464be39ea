"""Names, offsets and checksums of block files."""

from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.datapath.diskcache.layout import (
    MAX_HEADER_BYTES,
    PLAIN_FROM_BYTES,
    SEAL_BYTES,
    Identity,
    is_block_file_name,
    is_cacheable,
    key_id,
    parse_header,
)
from ossfs_py.model import ObjectVersion

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@st.composite
def identities(draw: st.DrawFn) -> Identity:
    version = ObjectVersion(draw(TEXTS), draw(TEXTS), draw(st.integers(1, 1 << 30)))
    return Identity(draw(TEXTS), draw(TEXTS), version, draw(st.sampled_from([4096, 1 << 20])))


@given(identities())
def test_a_header_tells_whose_file_it_is(identity: Identity) -> None:
    found = parse_header(identity.header + b"\1" * 8)
    assert found is not None
    assert found.name == identity.name
    assert found.version == identity.version
    assert len(identity.header) <= MAX_HEADER_BYTES
    assert is_block_file_name(identity.name)


@given(identities(), st.data())
def test_a_damaged_header_is_no_header(identity: Identity, data: st.DataObject) -> None:
    raw = bytearray(identity.header)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    found = parse_header(bytes(raw))
    assert found is None or found.name != identity.name


@given(identities(), st.binary(max_size=100))
def test_a_header_is_never_found_in_rubbish(identity: Identity, raw: bytes) -> None:
    assert parse_header(raw) is None
    assert parse_header(identity.header[:-1]) is None


@given(identities(), st.data())
def test_whole_blocks_lie_in_the_span_and_nothing_is_left_out(
    identity: Identity, data: st.DataObject
) -> None:
    size = identity.version.size
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    first, last = identity.whole_blocks(start, end)
    block = identity.block_size_bytes
    if first < last:
        assert start <= identity.span(first, last)[0]
        assert identity.span(first, last)[1] <= end
    assert first * block - start < block
    assert end - identity.span(first, last)[1] < block or first == last
    assert identity.whole_blocks(0, size) == (0, identity.block_count)


@given(identities())
def test_records_and_data_do_not_overlap(identity: Identity) -> None:
    assert identity.records_offset >= len(identity.header)
    assert identity.records_offset % 8 == 0
    assert identity.head_bytes >= identity.records_offset + identity.records_bytes
    assert identity.head_bytes % 4096 == 0
    assert identity.data_offset == (
        0 if identity.version.size > PLAIN_FROM_BYTES else identity.head_bytes
    )
    if identity.is_plain:
        assert identity.head_bytes >= identity.seal_offset + SEAL_BYTES


def test_versions_of_a_key_are_neighbours_and_differ() -> None:
    def name(key: str, etag: str, size: int, bucket: str = "b") -> str:
        return Identity("e", bucket, ObjectVersion(key, etag, size), 4096).name

    assert key_id(name("k", "1", 5)) == key_id(name("k", "2", 5))
    different = {
        name("k", "1", 5), name("k", "2", 5), name("k", "1", 6), name("l", "1", 5),
        name("k", "1", 5, "c"), name("k1", "", 5), name("k", "1", 5, "be"),
    }  # fmt: skip
    assert len(different) == 7


def test_a_checksum_belongs_to_one_block_of_one_version() -> None:
    view = memoryview(bytes(4096))
    one = Identity("e", "b", ObjectVersion("k", "1", 9000), 4096)
    other = Identity("e", "b", ObjectVersion("k", "2", 9000), 4096)
    sums = {one.checksum(0, view), one.checksum(1, view), other.checksum(0, view)}
    assert len(sums) == 3
    assert 0 not in sums


def test_what_cannot_be_told_apart_is_not_cached() -> None:
    assert not is_cacheable(ObjectVersion("k", "", 5))
    assert not is_cacheable(ObjectVersion("k", "e", 0))
    assert is_cacheable(ObjectVersion("k", "e", 1))
