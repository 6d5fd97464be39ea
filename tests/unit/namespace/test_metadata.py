"""The metadata formats of s3fs, ossfs and rclone."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.errors import RangeTooLargeError
from ossfs_py.namespace.metadata import NOTHING, decode, encode


def test_reads_what_s3fs_writes() -> None:
    decoded = decode(
        {
            "mode": "33188",
            "uid": "1000",
            "gid": "1001",
            "mtime": "1700000000.000000005",
            "atime": "1700000001",
            "ctime": "1700000002",
            "xattr": "%7B%22user.k%22%3A%22dg%3D%3D%22%7D",
        }
    )
    assert decoded.mode == stat.S_IFREG | 0o644
    assert (decoded.uid, decoded.gid) == (1000, 1001)
    assert decoded.mtime_ns == 1_700_000_000_000_000_005
    assert decoded.atime_ns == 1_700_000_001_000_000_000
    assert decoded.ctime_ns == 1_700_000_002_000_000_000
    assert decoded.xattrs == {"user.k": b"v"}
    assert not decoded.is_symlink


def test_reads_the_floating_point_time_of_rclone() -> None:
    assert decode({"mtime": "1602344010.123456789"}).mtime_ns == 1_602_344_010_123_456_789
    assert decode({"mtime": "1.5e9"}).mtime_ns == 1_500_000_000_000_000_000


def test_names_are_read_without_regard_to_case() -> None:
    assert decode({"Mode": "33188", "UID": "5"}).uid == 5


@pytest.mark.parametrize(
    "metadata",
    [
        {"mode": "rw-r--r--"},
        {"mode": "-1"},
        {"mode": "99999999"},
        {"uid": "4294967295"},
        {"uid": "²"},
        {"mtime": "yesterday"},
        {"mtime": "NaN"},
        {"mtime": "1e999999"},
        {"mtime": "9" * 65},
        {"xattr": "%7B"},
        {"xattr": "[1]"},
        {"xattr": '{"user.k": 5, "user.l": "*"}'},
        {"symlink-target": "header"},
        {"symlink-target": "header:3"},
        {"symlink-target": "header:0:"},
        {"symlink-target": "header:3:a%00b"},
        {"symlink-target": "elsewhere:1:a"},
    ],
)
def test_nonsense_is_ignored(metadata: dict[str, str]) -> None:
    decoded = decode(metadata)
    assert (decoded.mode, decoded.uid, decoded.mtime_ns) == (None, None, None)
    assert not decoded.is_symlink
    assert set(decoded.xattrs) <= {"user.l"}


@given(
    st.dictionaries(st.sampled_from(["mode", "uid", "mtime", "xattr", "symlink-target"]), st.text())
)
def test_no_metadata_makes_decoding_fail(metadata: dict[str, str]) -> None:
    decode(metadata)


def test_reads_both_symlink_forms() -> None:
    assert decode({"symlink-target": "header:6:..%2Fa%20b"}).symlink_target == b"../a b"
    assert decode({"symlink-target": "header:6:../a%20b"}).symlink_target == b"../a b"
    assert decode({"symlink-target": "body:0:"}).link_in_body
    assert decode({"mode": "41471"}).link_in_body


@given(
    st.binary(min_size=1, max_size=200).filter(lambda b: b"\0" not in b),
    st.integers(-(10**18), 10**19),
    st.dictionaries(st.text(max_size=20), st.binary(max_size=50), max_size=3),
)
def test_what_is_written_is_read_back(
    target: bytes, time_ns: int, xattrs: dict[str, bytes]
) -> None:
    written = encode(
        mode=stat.S_IFLNK | 0o777,
        uid=1,
        gid=2,
        mtime_ns=time_ns,
        atime_ns=time_ns,
        ctime_ns=time_ns,
        symlink_target=target,
        xattrs=xattrs,
    )
    assert all(value.isascii() for value in written.values())
    decoded = decode(written)
    assert decoded.symlink_target == target
    assert decoded.mtime_ns == decoded.atime_ns == decoded.ctime_ns == time_ns
    assert decoded.xattrs == xattrs
    assert (decoded.mode, decoded.uid, decoded.gid) == (stat.S_IFLNK | 0o777, 1, 2)


def test_what_other_tools_stored_is_kept_and_our_own_is_replaced() -> None:
    written = encode(
        mode=33188, uid=1, gid=2, foreign={"model-name": "llama", "Mode": "1", "mtime": "5"}
    )
    assert written == {"model-name": "llama", "mode": "33188", "uid": "1", "gid": "2"}


def test_more_than_two_kibibytes_are_refused() -> None:
    with pytest.raises(RangeTooLargeError):
        encode(mode=33188, uid=1, gid=2, xattrs={"user.k": b"x" * 2000})


def test_no_metadata_says_nothing() -> None:
    assert decode({}) == NOTHING
