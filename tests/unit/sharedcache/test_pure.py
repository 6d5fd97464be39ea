"""Keys, seals, places, paces and names of the shared cache, without a network."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.model import ObjectVersion
from ossfs_py.sharedcache import members
from ossfs_py.sharedcache.blocks import (
    BLOCK_BYTES,
    HEAD_BYTES,
    ITEM_OVERHEAD_BYTES,
    MAX_ITEMS,
    BlockNames,
    ValueDamagedError,
    pieces,
)
from ossfs_py.sharedcache.members import (
    Member,
    MembersUnknownError,
    find_members,
    is_this_machine_only,
    parse_member,
)
from ossfs_py.sharedcache.pace import SharedPace
from ossfs_py.sharedcache.placement import choose, seed_of
from ossfs_py.sharedcache.secret import read_secret

SECRET = b"a secret of the group"
VERSION = ObjectVersion("models/a.safetensors", "e1", 3 * BLOCK_BYTES + 5)


def names(
    secret: bytes | None = None, version: ObjectVersion = VERSION, block: int = BLOCK_BYTES
) -> BlockNames:
    return BlockNames("https://store", "bucket", version, block, secret)


def opened(names: BlockNames, index: int, value: bytes) -> bytes:
    """What a reader makes of a value of one item."""
    head = names.understood(value[:HEAD_BYTES], index)
    names.check(head, index, memoryview(value[HEAD_BYTES:]))
    return value[HEAD_BYTES:]


def sealed(names: BlockNames, index: int, data: bytes) -> bytes:
    return names.head(index, memoryview(data), 1) + data


# -- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_block_comes_back_as_it_was_sealed(secret: bytes | None) -> None:
    for index, size in ((0, BLOCK_BYTES), (3, 5)):
        data = random.Random(index).randbytes(size)
        assert opened(names(secret), index, sealed(names(secret), index, data)) == data


@pytest.mark.parametrize("secret", [None, SECRET])
def test_any_changed_bit_of_a_value_is_noticed(secret: bytes | None) -> None:
    data = random.Random(1).randbytes(5)
    value = sealed(names(secret), 3, data)
    for position in range(len(value)):
        if position == 5:  # how many items there are: said again by what is stored
            continue
        for bit in range(8):
            changed = bytearray(value)
            changed[position] ^= 1 << bit
            with pytest.raises(ValueDamagedError):
                opened(names(secret), 3, bytes(changed))


@pytest.mark.parametrize("secret", [None, SECRET])
def test_the_value_of_another_block_or_version_does_not_pass(secret: bytes | None) -> None:
    data = random.Random(1).randbytes(BLOCK_BYTES)
    mine = names(secret)
    others = [
        (names(secret), 1),
        (names(secret, ObjectVersion("models/b.safetensors", "e1", VERSION.size)), 0),
        (names(secret, ObjectVersion(VERSION.key, "e2", VERSION.size)), 0),
        (BlockNames("https://other", "bucket", VERSION, BLOCK_BYTES, secret), 0),
        (BlockNames("https://store", "other", VERSION, BLOCK_BYTES, secret), 0),
    ]
    for other, index in others:
        with pytest.raises(ValueDamagedError):
            opened(mine, 0, sealed(other, index, data))
        assert other.key(index) != mine.key(0)


def test_with_a_secret_nobody_without_it_makes_a_value_that_passes() -> None:
    data = random.Random(1).randbytes(BLOCK_BYTES)
    for other in (names(None), names(b"another secret, longer")):
        assert other.key(0) != names(SECRET).key(0)
        with pytest.raises(ValueDamagedError):
            opened(names(SECRET), 0, sealed(other, 0, data))


def test_texts_that_run_together_the_same_way_have_keys_of_their_own() -> None:
    one = BlockNames("p", "ab", ObjectVersion("c", "d", 9), BLOCK_BYTES)
    two = BlockNames("p", "a", ObjectVersion("bc", "d", 9), BLOCK_BYTES)
    assert one.key(0) != two.key(0)


def test_keys_are_what_memcached_takes() -> None:
    key = names(SECRET, ObjectVersion("k" * 1024, "\udcff", 5 * 1024**4)).key(5 * 1024**2 - 1, 63)
    assert len(key) < 250
    assert key.isascii()
    assert not set(key) & set(b" \r\n\0")


def test_blocks_of_another_size_are_other_blocks() -> None:
    assert names(block=BLOCK_BYTES).key(0) != names(block=BLOCK_BYTES // 2).key(0)


@given(st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES + 5))
def test_no_foreign_bytes_are_taken_for_a_block(value: bytes) -> None:
    with pytest.raises(ValueDamagedError):
        opened(names(), 3, value)


@given(st.integers(0, 4 * BLOCK_BYTES), st.integers(0, 4 * BLOCK_BYTES))
def test_whole_blocks_lie_inside_the_span(one: int, other: int) -> None:
    start, end = sorted((min(one, VERSION.size), min(other, VERSION.size)))
    blocks = names().whole_blocks(start, end)
    for index in blocks:
        assert start <= index * BLOCK_BYTES
        assert index * BLOCK_BYTES + names().size(index) <= end
    if start == 0 and end == VERSION.size:
        assert blocks == range(names().count)


@given(st.integers(1, BLOCK_BYTES), st.integers(0, 20 * 1024**2))
def test_pieces_cover_the_block_and_fit_the_items(size: int, item_bytes: int) -> None:
    spans = pieces(size, item_bytes)
    assert len(spans) <= MAX_ITEMS
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end == start
    if spans:
        assert (spans[0][0], spans[-1][1]) == (0, size)
        assert all(0 < b - a <= item_bytes - ITEM_OVERHEAD_BYTES - HEAD_BYTES for a, b in spans)
    else:
        assert item_bytes < size // MAX_ITEMS + ITEM_OVERHEAD_BYTES + HEAD_BYTES + 1


# -- placement -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    name: str
    weight: float = 1.0

    @property
    def seed(self) -> int:
        return seed_of(self.name)


PLACES = [Place(f"10.0.0.{number}:11211") for number in range(8)]
STRIPES = [b"stripe %d" % number for number in range(4000)]


def test_every_node_has_its_share_by_weight() -> None:
    nodes = [Place(place.name, 3.0 if number == 0 else 1.0) for number, place in enumerate(PLACES)]
    shares = Counter(choose(stripe, nodes) for stripe in STRIPES)
    assert shares[nodes[0]] == pytest.approx(len(STRIPES) * 0.3, rel=0.1)
    for node in nodes[1:]:
        assert shares[node] == pytest.approx(len(STRIPES) * 0.1, rel=0.25)


def test_a_node_that_goes_moves_its_own_share_only_and_evenly() -> None:
    before = {stripe: choose(stripe, PLACES) for stripe in STRIPES}
    after = {stripe: choose(stripe, PLACES[1:]) for stripe in STRIPES}
    moved = [stripe for stripe in STRIPES if before[stripe] != after[stripe]]
    assert all(before[stripe] == PLACES[0] for stripe in moved)
    assert len(moved) == pytest.approx(len(STRIPES) / 8, rel=0.2)
    assert max(Counter(after[stripe] for stripe in moved).values()) < len(moved) / 7 * 1.6


def test_the_order_of_nodes_does_not_matter() -> None:
    assert [choose(s, PLACES) for s in STRIPES[:99]] == [
        choose(s, PLACES[::-1]) for s in STRIPES[:99]
    ]


def test_without_a_node_of_weight_there_is_no_place() -> None:
    assert choose(b"x", []) is None
    assert choose(b"x", [Place("a", 0.0)]) is None


# -- members -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("node1:11300", ("node1", 11300)),
        ("node1", ("node1", 11211)),
        ("[::1]:99", ("::1", 99)),
        ("[::1]", ("::1", 11211)),
    ],
)
def test_nodes_are_written_as_hosts_and_ports(text: str, found: tuple[str, int]) -> None:
    assert parse_member(text) == found


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a:b", "a:0", "a:70000", "[::1", "[::1]x", "a b:1", "http://a:1", "a/b"],
)
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_member(text)


def test_a_list_of_nodes_is_the_same_for_everybody() -> None:
    one = find_members("b:1,a:2,b:1")
    assert one == find_members("a:2,b:1")
    assert one == (Member("a:2", ("a", 2)), Member("b:1", ("b", 1)))


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(host: str, port: int, **_: object) -> list[object]:
        assert (host, port) == ("nodes.local", 11211)
        return [(2, 1, 6, "", (ip, port)) for ip in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]

    monkeypatch.setattr(members.socket, "getaddrinfo", answers)
    assert [each.name for each in find_members("nodes.local")] == [
        "10.0.0.1:11211",
        "10.0.0.2:11211",
    ]


def test_a_name_that_does_not_resolve_is_said() -> None:
    with pytest.raises(MembersUnknownError, match=r"'no-such-host\.invalid' cannot be resolved"):
        find_members("no-such-host.invalid")


def test_a_file_names_a_node_a_line(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    path.write_text("# the rack\nb:1\n\na:2  # the other one\n")
    assert [each.name for each in find_members(f"file:{path}")] == ["a:2", "b:1"]
    path.write_text("what is this?\n")
    with pytest.raises(MembersUnknownError, match="is not HOST:PORT"):
        find_members(f"file:{path}")
    path.unlink()
    with pytest.raises(MembersUnknownError, match="cannot be read"):
        find_members(f"file:{path}")


def test_a_name_that_leads_to_this_machine_only_is_noticed() -> None:
    here = (Member("127.0.0.1:1", ("127.0.0.1", 1)),)
    elsewhere = (Member("10.0.0.1:1", ("10.0.0.1", 1)),)
    assert is_this_machine_only("nodes.local:1", here)
    assert not is_this_machine_only("127.0.0.1:1", here)
    assert not is_this_machine_only("nodes.local:1", (*here, *elsewhere))
    assert not is_this_machine_only("nodes.local:1", ())


# -- pace ----------------------------------------------------------------------------------------


def test_a_cache_slower_than_the_bucket_is_asked_one_time_in_eight() -> None:
    pace = SharedPace()
    for _ in range(80):
        pace.cache_took(1 << 20, 0.050)
        pace.store_took(1 << 20, 0.010)
    assert sum(pace.worth_asking() for _ in range(80)) == 10
    for _ in range(40):
        pace.cache_took(1 << 20, 0.005)
    assert all(pace.worth_asking() for _ in range(80))


def test_a_cache_about_as_fast_as_the_bucket_is_asked() -> None:
    pace = SharedPace()
    for _ in range(80):
        pace.cache_took(1 << 20, 0.030)
        pace.store_took(1 << 20, 0.010)
    assert all(pace.worth_asking() for _ in range(80))


def test_the_wait_for_others_is_bounded_and_follows_the_bucket() -> None:
    pace = SharedPace()
    assert (pace.wait_seconds, pace.lease_seconds) == (15.0, 15)  # nothing is known yet
    for _ in range(100):
        pace.store_took(1 << 20, 0.1)
    assert (pace.wait_seconds, pace.lease_seconds) == (4.0, 15)
    for _ in range(200):
        pace.another_took(6.0)
    assert pace.wait_seconds == pytest.approx(24.0)
    assert pace.lease_seconds in (23, 24)
    for _ in range(200):
        pace.store_took(1 << 20, 100.0)
    assert (pace.wait_seconds, pace.lease_seconds) == (30.0, 60)
    pauses = [pace.poll_seconds(number) for number in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.2


# -- the secret ----------------------------------------------------------------------------------


def test_the_secret_is_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    assert read_secret(path) == SECRET


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"short\n", 0o600, "must hold 16 to 64 bytes"),
        (b"x" * 65, 0o600, "must hold 16 to 64 bytes"),
        (SECRET, 0o640, "can be read by others"),
    ],
)
def test_a_secret_that_is_none_is_refused(
    tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(EnvironmentProblemError, match=said) as refused:
        read_secret(path)
    assert content.decode() not in str(refused.value)


def test_a_missing_secret_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblemError, match="cannot be read: No such file"):
        read_secret(tmp_path / "none")
