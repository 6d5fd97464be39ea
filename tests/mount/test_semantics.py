"""What a local disk does with files, a mount does too, over each data path.

One mount for each data path serves all tests; each test works in a directory of its own and
checks at the store, through a client that shares no code with the package, what was kept.
"""

import concurrent.futures
import ctypes
import errno
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.proxy import Fault, Proxy
from tests.support.workplace import Workplace

KIB = 1024
MIB = 1024**2
PROGRAM_SECONDS = 60
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
"""linux/falloc.h."""


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor that is closed at the end."""
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


CREATE = os.O_RDWR | os.O_CREAT


# -- positions and sizes ------------------------------------------------------------------------


def test_appends_through_two_descriptors_never_overwrite_each_other(place: Workplace) -> None:
    path = place.path / "log"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with opened(path, flags) as one, opened(path, flags) as two:
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            list(
                threads.map(
                    lambda pair: [os.write(pair[0], pair[1]) for _ in range(200)],
                    ((one, b"one one\n"), (two, b"two two\n")),
                )
            )
        # Writing at an offset does not move what O_APPEND means.
        os.lseek(one, 0, os.SEEK_SET)
        os.write(one, b"the end\n")
    lines = place.stored("log").splitlines()
    assert lines[-1] == b"the end"
    assert sorted(lines[:-1]) == [b"one one"] * 200 + [b"two two"] * 200


def test_an_append_to_a_stored_file_goes_behind_it(place: Workplace) -> None:
    place.put("log", b"before\n")
    with (place.path / "log").open("ab") as log:
        log.write(b"after\n")
    assert place.stored("log") == b"before\nafter\n"


def test_holes_read_as_zeros_wherever_they_are(place: Workplace) -> None:
    with opened(place.path / "sparse", CREATE) as fd:
        os.pwrite(fd, b"end", 12 * MIB)
        os.pwrite(fd, b"middle", 5 * MIB + 7)
        assert os.pread(fd, 4096, 0) == bytes(4096)
        assert os.pread(fd, 10, 5 * MIB + 5) == b"\0\0middle\0\0"
        assert os.fstat(fd).st_size == 12 * MIB + 3
    expected = bytearray(12 * MIB + 3)
    expected[5 * MIB + 7 : 5 * MIB + 13] = b"middle"
    expected[-3:] = b"end"
    assert place.stored("sparse") == expected


def test_truncating_by_path_and_by_descriptor_gives_zeros_and_no_old_bytes(
    place: Workplace,
) -> None:
    path = place.path / "file"
    path.write_bytes(b"x" * 300_000)
    os.truncate(path, 100)
    assert place.stored("file") == b"x" * 100
    os.truncate(path, 200_000)
    assert place.stored("file") == b"x" * 100 + bytes(199_900)
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, 50)
        os.ftruncate(fd, 60)
        assert os.pread(fd, 100, 0) == b"x" * 50 + bytes(10)
        os.pwrite(fd, b"!", 70)
    assert place.stored("file") == b"x" * 50 + bytes(20) + b"!"
    os.truncate(path, 0)
    assert place.stored("file") == b""


def test_opening_with_o_trunc_empties_the_file_for_all_descriptors(place: Workplace) -> None:
    path = place.path / "file"
    path.write_bytes(b"long content")
    with opened(path, os.O_RDWR) as before:
        with opened(path, os.O_WRONLY | os.O_TRUNC):
            assert os.fstat(before).st_size == 0
        assert os.pread(before, 100, 0) == b""
        assert place.stored("file") == b""
        os.pwrite(before, b"new", 0)
    assert place.stored("file") == b"new"


def test_o_trunc_of_a_read_only_descriptor_and_an_empty_new_file_are_stored(
    place: Workplace,
) -> None:
    place.put("full", b"content")
    with opened(place.path / "full", os.O_RDONLY | os.O_TRUNC) as fd:
        assert os.fstat(fd).st_size == 0
    with opened(place.path / "new", os.O_RDONLY | os.O_CREAT):
        pass
    assert place.stored("full") == place.stored("new") == b""


def test_vectored_writes_and_reads_keep_their_order(place: Workplace) -> None:
    with opened(place.path / "file", CREATE) as fd:
        assert os.writev(fd, [b"one", b"", b"two" * 100_000]) == 300_003
        assert os.pwritev(fd, [b"O", b"N"], 0) == 2
        head, tail = bytearray(3), bytearray(300_000)
        assert os.preadv(fd, [head, tail], 0) == 300_003
        assert (head, tail) == (b"ONe", b"two" * 100_000)
    assert place.stored("file") == b"ONe" + b"two" * 100_000


def test_writes_in_any_order_with_rewrites_are_stored_as_written(place: Workplace) -> None:
    content = bytearray(os.urandom(9 * MIB))
    place.put("file", bytes(content))
    with opened(place.path / "file", os.O_RDWR) as fd:
        for offset in (8 * MIB + 1, 17, 4 * MIB, 9 * MIB - 5, 16, 4 * MIB + 3):
            patch = os.urandom(5)
            assert os.pwrite(fd, patch, offset) == 5
            content[offset : offset + 5] = patch
            assert os.pread(fd, 9, offset - 2) == content[offset - 2 : offset + 7]
    assert place.stored("file") == content
    assert (place.path / "file").read_bytes() == content


# -- mappings -----------------------------------------------------------------------------------


def test_a_shared_mapping_is_stored_by_msync_and_close(place: Workplace) -> None:
    path = place.path / "mapped"
    with opened(path, CREATE) as fd:
        os.ftruncate(fd, 2 * MIB)
        mapping = mmap.mmap(fd, 2 * MIB)
    # The descriptor is closed; the mapping lives on.
    mapping[MIB : MIB + 5] = b"first"
    mapping.flush()
    assert path.read_bytes()[MIB : MIB + 5] == b"first"
    mapping[:4] = b"last"
    mapping.flush()
    mapping.close()
    with opened(path, os.O_RDWR) as fd:
        os.fsync(fd)
    expected = bytearray(2 * MIB)
    expected[MIB : MIB + 5], expected[:4] = b"first", b"last"
    assert path.read_bytes() == expected
    assert place.stored("mapped") == expected


def test_two_mappings_and_a_descriptor_see_the_same_bytes(place: Workplace) -> None:
    place.put("mapped", b"a" * 100_000)
    path = place.path / "mapped"
    with (
        opened(path, os.O_RDWR) as one,
        opened(path, os.O_RDWR) as two,
        mmap.mmap(one, 0) as first,
        mmap.mmap(two, 0) as second,
    ):
        first[5:9] = b"seen"
        assert second[4:10] == b"aseena"
        first.flush()
        assert os.pread(two, 6, 4) == b"aseena"
        os.pwrite(two, b"WROTE", 50_000)
        assert first[50_000:50_005] == b"WROTE"
    expected = bytearray(b"a" * 100_000)
    expected[5:9], expected[50_000:50_005] = b"seen", b"WROTE"
    assert place.stored("mapped") == expected


def test_a_private_mapping_changes_nothing(place: Workplace) -> None:
    place.put("mapped", b"content")
    both = mmap.PROT_READ | mmap.PROT_WRITE
    with (
        opened(place.path / "mapped", os.O_RDONLY) as fd,
        mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=both) as own,
    ):
        own[:4] = b"mine"
        assert own[:] == b"mineent"
    assert place.stored("mapped") == (place.path / "mapped").read_bytes() == b"content"


# -- names of open files ------------------------------------------------------------------------


def test_a_file_renamed_over_an_open_one_leaves_its_reader_the_old_content(
    place: Workplace,
) -> None:
    old, new = os.urandom(5 * MIB), os.urandom(MIB)
    place.put("target", old)
    (place.path / "source").write_bytes(new)
    with opened(place.path / "target", os.O_RDONLY) as reader:
        assert os.pread(reader, 100, 0) == old[:100]
        (place.path / "source").rename(place.path / "target")
        assert read_all(reader) == old
        assert (place.path / "target").read_bytes() == new
    assert place.stored_names() == {"target"}
    assert place.stored("target") == new


def test_an_unlinked_file_is_read_and_written_until_its_last_close(place: Workplace) -> None:
    content = os.urandom(5 * MIB)
    place.put("file", content)
    with opened(place.path / "file", os.O_RDWR) as fd:
        (place.path / "file").unlink()
        assert place.stored_names() == set()
        assert os.fstat(fd).st_nlink == 0
        assert read_all(fd) == content
        os.pwrite(fd, b"still", 10)
        os.fsync(fd)
        assert os.pread(fd, 7, 9) == content[9:10] + b"still" + content[15:16]
        (place.path / "file").write_bytes(b"another file")
        assert os.pread(fd, 5, 10) == b"still"
    assert place.stored_names() == {"file"}
    assert place.stored("file") == b"another file"


def test_a_dirty_file_renamed_while_open_is_stored_under_its_new_name_only(
    place: Workplace,
) -> None:
    (place.path / "dir").mkdir()
    with opened(place.path / "old", CREATE) as fd:
        os.write(fd, b"before ")
        (place.path / "old").rename(place.path / "dir/new")
        os.write(fd, b"after")
        assert (place.path / "dir/new").read_bytes() == b"before after"
        (place.path / "dir").rename(place.path / "moved")
        os.write(fd, b" all")
    assert place.stored_names() == {"moved/new"}
    assert place.stored("moved/new") == b"before after all"


def test_a_dirty_file_that_is_unlinked_is_never_stored(place: Workplace) -> None:
    with opened(place.path / "file", CREATE) as fd:
        os.write(fd, b"x" * 100_000)
        (place.path / "file").unlink()
        os.fsync(fd)
        assert os.pread(fd, 5, 99_998) == b"xx"
    assert place.stored_names() == set()
    assert not (place.path / "file").exists()


# -- descriptors of several processes -----------------------------------------------------------


def test_every_close_of_a_shared_descriptor_stores_what_was_written(place: Workplace) -> None:
    with opened(place.path / "file", CREATE) as fd:
        os.write(fd, b"parent ")
        copy = os.dup(fd)
        os.write(copy, b"copy ")
        os.close(copy)
        assert place.stored("file") == b"parent copy "
        writer = "import os, sys; os.write(int(sys.argv[1]), b'child ')"
        # The child inherits the descriptor over fork and exec, and the offset with it.
        subprocess.run(
            [sys.executable, "-c", writer, str(fd)],
            pass_fds=[fd],
            check=True,
            timeout=PROGRAM_SECONDS,
        )
        assert place.stored("file") == b"parent copy child "
        os.write(fd, b"end")
    assert place.stored("file") == b"parent copy child end"


def test_another_process_reads_what_is_not_closed_yet(place: Workplace) -> None:
    content = os.urandom(3 * MIB)
    with (place.path / "file").open("wb", buffering=0) as out:
        out.write(content)
        seen = subprocess.run(
            ["cat", place.path / "file"], check=True, capture_output=True, timeout=PROGRAM_SECONDS
        ).stdout
    assert seen == content


def test_a_program_is_executed_from_the_mount(place: Workplace) -> None:
    program = place.path / "program"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o755)
    assert place.run(program, "ran") == "ran\n"


# -- ways to move bytes without reading them ----------------------------------------------------


def test_the_kernel_copies_between_files_of_the_mount_and_others(place: Workplace) -> None:
    content = os.urandom(3 * MIB)
    place.put("source", content)
    with opened(place.path / "source", os.O_RDONLY) as source:
        with opened(place.path / "copied", CREATE) as target:
            moved = 0
            while count := os.copy_file_range(source, target, MIB, moved, moved):
                moved += count
        with opened(place.path / "sent", CREATE) as target:
            moved = 0
            while count := os.sendfile(target, source, moved, MIB):
                moved += count
        with opened(place.local / "spliced", CREATE) as target:
            splice(source, target, len(content))
    with (
        opened(place.local / "spliced", os.O_RDONLY) as source,
        opened(place.path / "spliced-in", CREATE) as target,
    ):
        splice(source, target, len(content))
    assert place.stored("copied") == place.stored("sent") == content
    assert place.stored("spliced-in") == (place.local / "spliced").read_bytes() == content


def splice(source: int, target: int, size: int) -> None:
    """Move bytes through a pipe."""
    out, into = os.pipe()
    try:
        done = 0
        while done < size:
            count = os.splice(source, into, 64 * KIB, offset_src=done)
            moved = 0
            while moved < count:
                moved += os.splice(out, target, count - moved, offset_dst=done + moved)
            done += count
    finally:
        os.close(out)
        os.close(into)


def test_direct_io_reads_and_writes_whole_blocks(place: Workplace) -> None:
    # O_DIRECT wants aligned memory: a mapping begins at a page.
    with mmap.mmap(-1, MIB) as block:
        block[:] = os.urandom(MIB)
        with opened(place.path / "file", CREATE | os.O_DIRECT) as fd:
            assert os.write(fd, block) == MIB
            assert os.pwrite(fd, block, 2 * MIB) == MIB
        expected = block[:] + bytes(MIB) + block[:]
    assert place.stored("file") == expected
    with opened(place.path / "file", os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, MIB) as back:
        assert os.preadv(fd, [back], 2 * MIB) == MIB
        assert back[:] == expected[2 * MIB :]
        assert os.preadv(fd, [back], 3 * MIB) == 0


def test_space_is_not_reserved_but_posix_fallocate_extends(place: Workplace) -> None:
    with opened(place.path / "file", CREATE) as fd:
        os.write(fd, b"content")
        os.posix_fallocate(fd, 0, 20_000)
        assert os.fstat(fd).st_size == 20_000
        # Nothing in it is a hole: lseek(2) knows data up to the end.
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 20_000
        for mode in (0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
            with refused(errno.EOPNOTSUPP):
                fallocate(fd, mode, 0, 4096)
    assert place.stored("file") == b"content" + bytes(19_993)


# -- others, and the store ----------------------------------------------------------------------


def test_an_object_replaced_under_a_reader_is_stale_and_new_for_the_next_open(
    place: Workplace,
) -> None:
    old, new = os.urandom(24 * MIB), os.urandom(24 * MIB)
    place.put("file", old)
    with opened(place.path / "file", os.O_RDONLY) as reader:
        assert os.pread(reader, 64 * KIB, 0) == old[: 64 * KIB]
        place.put("file", new)
        with refused(errno.ESTALE):
            os.pread(reader, 64 * KIB, 20 * MIB)
    # The first bytes of the old version were in the page cache.
    assert (place.path / "file").read_bytes() == new


@pytest.mark.parametrize("fate", ["shrinks", "grows", "vanishes"])
def test_a_file_that_changes_while_it_is_streamed_ends_as_stale_without_a_wrong_byte(
    place: Workplace, fate: str
) -> None:
    old = os.urandom(64 * MIB)
    place.put("file", old)
    with opened(place.path / "file", os.O_RDONLY) as reader:
        position = len(os.read(reader, MIB))
        if fate == "vanishes":
            place.client.remove_object(place.bucket, place.key("file"))
        else:
            place.put("file", os.urandom((40 if fate == "shrinks" else 80) * MIB))
        with refused(errno.ESTALE):
            while position < len(old):
                piece = os.read(reader, MIB)
                assert piece == old[position : position + MIB]
                position += len(piece)


def header(described: object) -> bytes:
    text = json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(*offsets: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": [1], "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "start",
    [
        (2**63 - 1).to_bytes(8, "little"),
        (64 * MIB).to_bytes(8, "little") + b"{",
        (20).to_bytes(8, "little") + b"no header at all, no",
        header({"a": tensor(0, 2**50)}),
        header({"a": tensor(0, 2 * MIB), "b": tensor(MIB, 3 * MIB)}),
        header({"a": tensor(5 * MIB, MIB)}),
        header({f"t{n}": tensor(n, n + 1) for n in range(20_000)}),
    ],
    ids=["endless", "longer than allowed", "no json", "beyond", "overlap", "backwards", "many"],
)
def test_a_model_whose_header_lies_or_is_huge_is_served_like_any_file(
    place: Workplace, start: bytes
) -> None:
    content = start + os.urandom(12 * MIB)
    place.put("model-00001-of-00002.safetensors", content)
    path = place.path / "model-00001-of-00002.safetensors"
    with opened(path, os.O_RDONLY) as fd:
        assert os.pread(fd, len(start), 0) == start
        assert os.pread(fd, 4096, 7 * MIB) == content[7 * MIB : 7 * MIB + 4096]
    assert path.read_bytes() == content


def test_close_returns_the_error_and_the_data_is_kept_for_the_next_fsync(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    mounted = mount(bucket, data_path="direct", endpoint=proxy.endpoint)
    place = Workplace.make(mounted, minio_client, tmp_path)
    content = os.urandom(200_000)
    with opened(place.path / "file", CREATE) as fd:
        os.write(fd, content)
        proxy.faults.append(Fault("PutObject", times=None, status=403, code="AccessDenied"))
        with refused(errno.EACCES):
            os.close(os.dup(fd))
        assert os.pread(fd, len(content), 0) == content
        assert place.stored_names() == set()
        proxy.faults.clear()
        os.fsync(fd)
        assert place.stored("file") == content


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2) itself, of which Python has the POSIX form only."""
    call = ctypes.CDLL(None, use_errno=True).fallocate
    if call(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def read_all(fd: int) -> bytes:
    """The whole file, through this descriptor."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
