"""A mount whose whole process tree ends, as a container's does: the node's keeper holds it, and the
next container goes on with it. Programs notice a pause."""

import io
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from minio import Minio

from ossfs_py.cli.list import list_mounts
from ossfs_py.host.mountpoint import THIS_MACHINE
from ossfs_py.host.standing import Standing, look_at
from tests.conftest import MountFactory
from tests.support.commands import as_ordinary_user, plain_environment
from tests.support.holding import wait_for
from tests.support.kept import KEPT, daemon_of, stop
from tests.support.mounting import END_SECONDS, Mount, is_mounted, wait_for_log

MIB = 1024**2
only_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


class NodeKeeperProcess:
    """``ossfs-py keeper`` at a socket of its own."""

    def __init__(self, work: Path) -> None:
        self.socket = work / "run/keeper"
        self._log = work / "keeper.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "ossfs_py", "keeper", f"--socket={self.socket}", *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=plain_environment({})
            )
        count = self.log.count("keeping mounts at") + 1
        wait_for(lambda: self.log.count("keeping mounts at") >= count or not self.runs)
        assert self.runs, self.log

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(END_SECONDS)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeKeeperProcess]:
    one = NodeKeeperProcess(tmp_path)
    one.start("--wait=60s")
    yield one
    if one.runs:
        one.end(signal.SIGKILL)


def kept(mounted: Mount, node: NodeKeeperProcess) -> Mount:
    wait_for_log(mounted, KEPT)
    wait_for(lambda: "is kept" in node.log)
    return mounted


def killed(mounted: Mount) -> None:
    """All of its processes at once, as the end of a container's first process has it."""
    children = Path(f"/proc/{mounted.pid}/task/{mounted.pid}/children").read_text().split()
    ends = [os.pidfd_open(int(pid)) for pid in (mounted.pid, *children)]
    for end in ends:
        signal.pidfd_send_signal(end, signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], END_SECONDS)[0]
        os.close(end)
    mounted.wait()


def goes_on(mounted: Mount) -> None:
    """The next daemon serves."""
    before = mounted.log.count(KEPT)
    wait_for_log_count(mounted, KEPT, before)


def wait_for_log_count(mounted: Mount, text: str, before: int) -> None:
    mounted.start()
    wait_for(lambda: mounted.log.count(text) > before)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_readers_and_mappings_go_on_in_the_next_container(
    mount: MountFactory, bucket: str, minio_client: Minio, node: NodeKeeperProcess, how: str
) -> None:
    content = os.urandom(3 * MIB)
    minio_client.put_object(bucket, "dir/model", io.BytesIO(content), len(content))
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    with (
        (one.path / "dir" / "model").open("rb", buffering=0) as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        start = file.read(100_000)
        if how == "stopped":
            assert one.terminate() == 0
        else:
            killed(one)
        assert is_mounted(one.path)
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(file.read(MIB)))
        reader.start()  # it waits until somebody answers
        goes_on(one)
        reader.join(END_SECONDS)
        assert start + read[0] == content[: 100_000 + len(read[0])]
        assert mapped[:] == content
    assert len(THIS_MACHINE.mounts_at(one.path)) == 1
    assert one.unmount() == 0, one.log
    assert not is_mounted(one.path)
    assert "is given up" not in node.log
    assert ("its daemon died" in node.log) == (how == "killed")


# A program that starts another one with a file open for writing waits for its flush, so the test
# itself, which starts the next daemon, has none.
WRITER = """
import os, sys
path, syncs = sys.argv[1:]
file = open(path, 'wb', buffering=0)
print('open', flush=True)
for line in sys.stdin:
    file.write(line.rstrip('\\n').encode())
    if syncs == 'syncs':
        os.fsync(file.fileno())
    print('written', flush=True)
file.write(b' end')
file.close()
"""


class Writer:
    """A program with a file open for writing."""

    def __init__(self, path: Path, syncs: str) -> None:
        """``syncs``: whether it calls fsync after each word, "syncs" or "never"."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, syncs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "open\n"

    def write(self, word: str) -> None:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)
        assert self._line() == "written\n"

    def end(self) -> None:
        """Let it close its file."""
        assert self.process.communicate(timeout=END_SECONDS) == ("", None)
        assert self.process.returncode == 0

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def writers() -> Iterator[Callable[[Path, str], Writer]]:
    """Starts writers, and ends them with the test."""
    started: list[Writer] = []

    def start(path: Path, syncs: str) -> Writer:
        started.append(Writer(path, syncs))
        return started[-1]

    yield start
    for writer in started:
        writer.process.kill()
        writer.process.communicate()


def test_a_container_that_is_stopped_leaves_nothing_in_its_memory(
    mount: MountFactory,
    bucket: str,
    minio_client: Minio,
    node: NodeKeeperProcess,
    writers: Callable[[Path, str], Writer],
) -> None:
    """``direct`` keeps what is written in memory: told to end, it brings it to disk first."""
    one = kept(mount(bucket, data_path="direct", keeper=node.socket), node)
    writer = writers(one.path / "file", "never")
    writer.write("begun")
    assert one.terminate() == 0, one.log
    goes_on(one)
    writer.write("continued")
    writer.end()
    assert minio_client.get_object(bucket, "file").data == b"beguncontinued end"
    assert one.unmount() == 0, one.log


def test_what_is_written_goes_on_in_the_next_container(
    mount: MountFactory,
    bucket: str,
    minio_client: Minio,
    node: NodeKeeperProcess,
    writers: Callable[[Path, str], Writer],
) -> None:
    one = kept(mount(bucket, data_path="temp", keeper=node.socket), node)
    writer = writers(one.path / "file", "syncs")
    written = ""
    for word, end in (("one", one.terminate), ("two", lambda: killed(one)), ("three", None)):
        written += word
        writer.write(word)
        assert minio_client.get_object(bucket, "file").data == written.encode()
        if end is not None:
            end()
            goes_on(one)
    writer.end()
    assert minio_client.get_object(bucket, "file").data == b"onetwothree end"
    assert one.unmount() == 0, one.log
    assert not list(one.state_dir.rglob("unsaved/*"))


def test_a_second_container_waits_until_the_first_has_ended(
    mount: MountFactory, bucket: str, minio_client: Minio, node: NodeKeeperProcess, tmp_path: Path
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    log = tmp_path / "second.log"
    with log.open("wb") as out, (one.path / "file").open("rb", buffering=0) as file:
        second = subprocess.Popen(
            one.arguments, stdout=out, stderr=out, env=one.environment, start_new_session=True
        )
        wait_for(lambda: f"waiting for the daemon that serves {one.path}" in log.read_text())
        assert one.terminate() == 0
        wait_for(lambda: KEPT in log.read_text())
        assert file.read() == b"bytes"
    subprocess.run(["umount", one.path], check=True)
    assert second.wait(END_SECONDS) == 0, log.read_text()


def test_a_mount_that_nobody_takes_over_in_time_is_given_up_and_can_be_made_anew(
    mount: MountFactory, bucket: str, minio_client: Minio, node: NodeKeeperProcess
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    assert node.end() == 0
    node.start("--wait=500ms")
    one = mount(bucket, data_path="direct", read_only=True, keeper=node.socket)
    kept(one, node)
    began = time.monotonic()
    with (one.path / "file").open("rb", buffering=0) as file:
        assert one.terminate() == 0
        with pytest.raises(OSError, match=r"abort|not connected"):  # while it waited, or after
            read_past_pages(file.fileno())
    assert time.monotonic() - began >= 0.5
    why = "no other daemon served it within 0.5 s"
    wait_for(lambda: f"the mount at {one.path} is given up: {why}" in node.log)
    wait_for(lambda: look_at(one.path).standing is Standing.FREE)
    listed = json.loads(CliRunner().invoke(list_mounts, ["--json"]).output)
    (row,) = [row for row in listed if row["mountpoint"] == str(one.path)]
    assert why in row["state"]
    goes_on(one)
    assert (one.path / "file").read_bytes() == b"bytes"
    assert one.unmount() == 0, one.log


def read_past_pages(descriptor: int) -> bytes:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(descriptor, 5, 0)


def test_a_keeper_that_was_killed_is_followed_by_another_that_holds_the_same(
    mount: MountFactory, bucket: str, minio_client: Minio, node: NodeKeeperProcess
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    with (one.path / "file").open("rb", buffering=0) as file:
        node.end(signal.SIGKILL)
        assert (one.path / "file").read_bytes() == b"bytes"
        count = node.log.count("is kept")
        node.start()
        wait_for(lambda: node.log.count("is kept") > count)
        killed(one)
        goes_on(one)
        assert read_past_pages(file.fileno()) == b"bytes"
    assert one.unmount() == 0, one.log


def test_without_its_keeper_a_mount_ends_as_any_other(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    one = kept(mount(bucket, data_path="temp", keeper=node.socket), node)
    assert node.end() == 0
    assert one.terminate() == 0, one.log
    assert not is_mounted(one.path)
    assert "is unmounted" in one.log


def test_a_container_that_dies_again_and_again_is_given_up(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    for _ in range(5):
        killed(one)
        goes_on(one)
    killed(one)
    wait_for(lambda: "is given up: its daemon died 6 times within a minute" in node.log)
    wait_for(lambda: look_at(one.path).standing is Standing.FREE)


def test_a_mount_of_something_else_gets_nothing_that_is_held(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    assert one.terminate() == 0
    other = [*one.arguments[:4], "another", *one.arguments[5:]]
    done = subprocess.run(
        other,
        check=False,
        capture_output=True,
        text=True,
        env=one.environment,
        timeout=END_SECONDS,
    )
    assert done.returncode == 1
    assert f"it holds the mount of {bucket} at {one.path}, not of another" in done.stderr
    goes_on(one)
    assert one.unmount() == 0, one.log


@only_as_root
def test_another_user_gets_nothing_from_a_keeper_and_gives_it_nothing(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    assert node.socket.stat().st_mode & 0o777 == 0o600
    ask = (
        "import json, socket, sys\n"
        "from ossfs_py.host.deposit import MOUNT\n"
        "channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "channel.connect(sys.argv[1])\n"
        "told = {'mountpoint': sys.argv[2], 'source': sys.argv[3]}\n"
        "try:\n"
        "    channel.send(MOUNT + json.dumps(told).encode())\n"
        "    print(socket.recv_fds(channel, 100, 8)[:2])\n"
        "except OSError as exc:\n"
        "    print(exc.strerror)\n"
    )
    words = [*as_ordinary_user(), sys.executable, "-c", ask, node.socket, one.path, bucket]

    def asked() -> str:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=END_SECONDS
        )
        return (done.stdout + done.stderr).strip().splitlines()[-1]

    assert asked() == "PermissionError: [Errno 13] Permission denied"
    # Past the permissions, the kernel's word on who asks counts.
    node.socket.parent.chmod(0o755)
    node.socket.chmod(0o666)
    assert asked() in ("(b'', [])", "Broken pipe", "Connection reset by peer")
    assert one.unmount() == 0, one.log


@only_as_root
def test_a_socket_of_another_user_is_no_keeper(tmp_path: Path, bucket: str) -> None:
    from ossfs_py.host.deposit import Deposit, DepositError

    path = tmp_path / "open/keeper"
    path.parent.mkdir()
    path.parent.chmod(0o777)
    listen = (
        "import socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "listener.bind(sys.argv[1]); listener.listen(); print('here', flush=True)\n"
        "sys.stdin.read()\n"
    )
    stranger = subprocess.Popen(
        [*as_ordinary_user(), sys.executable, "-c", listen, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"here\n"
        with pytest.raises(DepositError, match="neither root's nor yours"):
            Deposit.claimed(str(path), {"mountpoint": "/m", "source": bucket}, print)
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_keeper_that_is_told_to_end_unmounts_what_nobody_serves(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    assert one.terminate() == 0
    assert is_mounted(one.path)
    assert node.end() == 0
    assert "is given up: its keeper was told to end" in node.log
    assert not is_mounted(one.path)


def test_what_is_left_while_its_keeper_ends_is_unmounted_too(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    """As when a pod ends, and all of its containers are told at once."""
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    os.kill(one.pid, signal.SIGTERM)
    assert node.end() == 0
    assert one.wait() == 0
    assert not is_mounted(one.path)


def test_what_is_left_after_its_keeper_has_ended_is_unmounted_too(
    mount: MountFactory, bucket: str, node: NodeKeeperProcess
) -> None:
    """The daemon takes longer than its keeper waits."""
    one = kept(mount(bucket, data_path="direct", read_only=True, keeper=node.socket), node)
    daemon = daemon_of(one.path)
    stop(daemon)
    os.kill(one.pid, signal.SIGTERM)
    pending = f"/proc/{daemon}/status"
    told = 1 << (signal.SIGUSR2 - 1)
    wait_for(
        lambda: any(
            line.startswith("ShdPnd:") and int(line.split()[1], 16) & told
            for line in Path(pending).read_text().splitlines()
        )
    )
    assert node.end() == 0
    os.kill(daemon, signal.SIGCONT)
    assert one.wait() == 0
    assert not is_mounted(one.path)
    assert "is given up: the keeper of the node ended, too" in one.log
