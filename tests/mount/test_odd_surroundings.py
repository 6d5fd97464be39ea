"""Other writers, and clocks, where the store, the bucket or the key is not what one expects."""

import errno
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer
from tests.support.workplace import Workplace

APPEND = os.O_WRONLY | os.O_APPEND


def test_a_store_without_conditions_loses_nothing_and_is_told_once(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path=data_path, conditional_writes="off")
    place = Workplace.make(mounted, minio_client, mounted.path)
    place.put("log", b"a\n")
    place.run("ls", "-l")
    for number in range(5):
        place.put("log", place.stored("log") + b"theirs %d\n" % number)
        place.run("sh", "-c", f"echo ours {number} >> log")
    expected = b"a\n" + b"".join(b"theirs %d\nours %d\n" % (n, n) for n in range(5))
    assert place.stored("log") == expected
    ours = os.open(place.path / "log", os.O_RDWR)
    os.pwrite(ours, b"xx", 3)
    place.put("log", b"theirs")
    with refused(errno.ESTALE):
        os.close(ours)
    assert place.stored("log") == b"theirs"
    assert mounted.log.count("no conditional writes") == 1
    assert mounted.unmount() in (0, 1)  # 1 if it is set aside by the end of the mount itself


def test_a_wall_clock_that_jumps_changes_nothing_of_what_is_read_and_written(
    tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    library, moved = tmp_path / "moved_clock.so", tmp_path / "moved"
    source = Path(__file__).parents[1] / "support/moved_clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {**seaweed.environment, "LD_PRELOAD": str(library), "MOVED_CLOCK": str(moved)}
    with Mount(bucket, tmp_path, endpoint=seaweed.endpoint, environment=environment) as mounted:
        for number, seconds in enumerate((0, 86_400, -86_400, 10 * 365 * 86_400, 0)):
            moved.write_text(str(seconds))
            (mounted.path / "same").write_text(f"{number}")
            minio_client.put_object(bucket, f"theirs{number}", io.BytesIO(b"theirs"), 6)
            assert (mounted.path / f"theirs{number}").read_text() == "theirs"
            assert (mounted.path / "same").read_text() == f"{number}"
            answer = minio_client.get_object(bucket, "same")
            assert answer.read() == f"{number}".encode()
            answer.close()
            answer.release_conn()
        assert "this machine's clock and the store's differ by" in mounted.log
        assert mounted.unmount() == 0


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, APPEND], ids=["read", "both", "append"])
@pytest.mark.parametrize("what", ["deleted", "renamed here", "renamed by others"])
def test_a_handle_outlives_its_key(place: Workplace, what: str, flags: int) -> None:
    """Reads go on or say ESTALE; writes go to where the file is, or are refused and kept."""
    content = b"x" * 8_000_000
    place.put("f", content)
    path = place.path / "f"
    fd = os.open(path, flags)
    if flags != APPEND:
        assert os.pread(fd, 10, 0) == b"x" * 10
    if what == "renamed here":
        path.rename(place.path / "moved")
    else:
        if what == "renamed by others":
            place.put("moved", content)
        place.erase("f")
    if flags != APPEND:
        try:
            assert os.pread(fd, 10, 7_900_000) == b"x" * 10
        except OSError as exc:
            assert exc.errno == errno.ESTALE
            assert what != "renamed here"
    if flags == os.O_RDONLY:
        os.close(fd)
        return
    ours = b"ours"
    if what == "renamed here":
        os.write(fd, ours)
        os.close(fd)
        stored = place.stored("moved")
        assert stored == (content + ours if flags == APPEND else ours + content[4:])
        assert place.stored_names() == {"moved"}
    elif flags == APPEND:
        os.write(fd, ours)
        os.close(fd)  # what others took away is made anew, of what was appended
        assert place.stored("f") == ours
    else:
        with refused(errno.ESTALE):
            try:
                os.write(fd, ours)
            finally:
                os.close(fd)
        assert "f" not in place.stored_names()
    if what == "renamed by others":
        assert place.stored("moved") == content


def test_what_it_costs_to_open(
    mount: MountFactory, proxy: Proxy, bucket: str, data_path: str, minio_client: Minio
) -> None:
    """open, read, close of a known file: 0, 1, 0 requests; for writing, a HEAD and no more."""
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    place = Workplace.make(mounted, minio_client, mounted.path)
    for number in range(8):
        place.put(f"f{number}", b"content")
    place.run("stat", *(f"f{number}" for number in range(8)))
    for flags in ("wb", "ab"):  # what the store can do is found out with the first condition
        with (place.path / "settled").open(flags) as settled:
            settled.write(b"1")

    def cost(call: Callable[[], object]) -> dict[str, int]:
        proxy.reset()
        call()
        return dict(proxy.counts())

    fd = -1

    def opens(name: str, flags: int) -> Callable[[], None]:
        def call() -> None:
            nonlocal fd
            fd = os.open(place.path / name, flags, 0o644)

        return call

    assert cost(opens("f0", os.O_RDONLY)) == {}
    assert cost(lambda: os.read(fd, 100)) == {"GetObject": 1}
    assert cost(lambda: os.close(fd)) == {}
    for name, flags in {"f1": os.O_RDWR, "f2": APPEND, "f3": os.O_WRONLY}.items():
        assert cost(opens(name, flags)) == {"HeadObject": 1}
        assert cost(lambda: os.close(fd)) == {}
    assert cost(opens("f4", os.O_WRONLY | os.O_TRUNC)) == {}
    os.write(fd, b"new")
    assert cost(lambda: os.close(fd)) == {"PutObject": 1}
    assert cost(opens("f5", APPEND)) == {"HeadObject": 1}
    os.write(fd, b"more")
    assert cost(lambda: os.close(fd)) == {"GetObject": 1, "PutObject": 1}
    made = cost(opens("made", os.O_WRONLY | os.O_CREAT))
    assert made.get("PutObject", 0) == 0
    os.write(fd, b"new")
    maker = fd
    assert cost(opens("made", os.O_RDWR)) == {}  # made here, and still open
    os.close(fd)
    os.close(maker)
