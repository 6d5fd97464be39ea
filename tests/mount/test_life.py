"""The life of a daemon: start in the background, unmount, signals, crash, and the way back."""

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, THIS_MACHINE
from ossfs_py.host.running import find_daemon
from tests.support.commands import (
    TIMEOUT_SECONDS,
    as_ordinary_user,
    as_root,
    open_fuse_device,
    ordinary_user,
    ossfs,
)
from tests.support.mount_command import Place, daemons_of
from tests.support.mounting import Mount, is_mounted
from tests.support.proxy import Fault, Proxy
from tests.support.seaweed import SeaweedServer


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Iterator[Place]:
    place = Place(tmp_path, seaweed.endpoint, bucket, seaweed.environment)
    yield place
    for pid in daemons_of(place.mountpoint):
        os.kill(int(pid), signal.SIGKILL)
    while is_mounted(place.mountpoint):
        as_root("umount", "-l", place.mountpoint)


def mounted(place: Place, *more: str) -> int:
    """Mount in the background; the daemon's process id."""
    outcome = place.mount(*more)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert is_mounted(place.mountpoint)
    daemon = find_daemon(place.mountpoint)
    assert daemon is not None
    daemon.close()
    return daemon.mount.pid


def umount(place: Place, *more: str) -> None:
    outcome = ossfs("umount", place.mountpoint, *more, environment={})
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert not is_mounted(place.mountpoint)


def wait_gone(pid: int) -> None:
    """Until the process, no child of this one, has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            events = select.poll()
            events.register(descriptor, select.POLLIN)
            assert events.poll(30_000), "the daemon lives on"
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another program has written ``text`` and closes the file when its input ends.

    Not this one: each process it starts would close its copy of the descriptor, which uploads.
    """
    script = (
        "import sys\n"
        "file = open(sys.argv[1], 'wb', 0)\n"
        "file.write(sys.argv[2].encode())\n"
        "print('written', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"written\n"
        try:
            yield program
        finally:
            program.kill()


def test_the_mount_answers_when_the_command_returns(place: Place) -> None:
    mounted(place)
    assert list(place.mountpoint.iterdir()) == []
    umount(place)
    assert daemons_of(place.mountpoint) == []
    place.assert_nothing_left()


def test_a_bucket_is_mounted_and_unmounted_twice(place: Place) -> None:
    for number in range(2):
        mounted(place)
        (place.mountpoint / f"file{number}").write_text("hello")
        umount(place)
    mounted(place)
    assert sorted(path.name for path in place.mountpoint.iterdir()) == ["file0", "file1"]
    umount(place)


def test_restrictions_of_fstab_are_enforced_by_the_kernel(place: Place) -> None:
    mounted(place, "-o", "defaults,_netdev,noexec,ro")
    (entry,) = THIS_MACHINE.mounts_at(place.mountpoint)
    assert entry.filesystem_type == FILESYSTEM_TYPE
    assert entry.source == place.bucket
    flags = os.statvfs(place.mountpoint).f_flag
    assert flags & os.ST_NOEXEC
    assert flags & os.ST_RDONLY
    with pytest.raises(OSError, match="Read-only file system"):
        (place.mountpoint / "x").touch()
    umount(place)


def test_a_second_mount_at_the_same_place_is_refused(place: Place) -> None:
    mounted(place)
    outcome = place.mount("--nonempty")
    assert outcome.code == 1
    assert f"the mountpoint {place.mountpoint} is busy" in outcome.sentence
    umount(place)


def test_unmounting_a_busy_mount_names_who_uses_it(place: Place) -> None:
    mounted(place)
    with subprocess.Popen(["sleep", "60"], cwd=place.mountpoint) as user:
        outcome = ossfs("umount", place.mountpoint, environment={})
        assert outcome.code == 1
        assert outcome.sentence.startswith(
            f"{place.mountpoint} is busy, used by sleep ({user.pid}): end what uses it, or hide it"
            " now with --lazy"
        )
        assert is_mounted(place.mountpoint)
        umount(place, "--lazy")
        user.kill()


def test_who_unmounts_from_inside_is_not_told_of_itself(place: Place) -> None:
    mounted(place)
    inside = ("env", f"--chdir={place.mountpoint}")
    outcome = ossfs("umount", place.mountpoint, environment={}, wrapper=inside)
    assert outcome.code == 1
    assert outcome.sentence.startswith(f"{place.mountpoint} is busy:")
    umount(place)


def test_unmounting_from_outside_ends_the_daemon(place: Place) -> None:
    pid = mounted(place)
    subprocess.run(["fusermount3", "-u", str(place.mountpoint)], check=True)
    wait_gone(pid)
    assert daemons_of(place.mountpoint) == []


@pytest.fixture(scope="module")
def lost_device(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that makes the end of every connection look as it rarely does."""
    library = tmp_path_factory.mktemp("library") / "lost_device.so"
    source = Path(__file__).parent.parent / "support" / "lost_device.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


def test_a_request_taken_off_the_queue_while_unmounting_is_no_failure(
    lost_device: str, tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    with Proxy(seaweed.host) as proxy:
        mount = Mount(
            bucket,
            tmp_path,
            endpoint=proxy.endpoint,
            environment={**seaweed.environment, "LD_PRELOAD": lost_device},
        )
        with mount, writing(mount.path / "file", "whole") as program:
            proxy.faults.append(Fault(operation="PutObject", delay_seconds=1))
            assert program.stdin is not None
            program.stdin.close()  # closing the file waits for the store
            while not proxy.counts()["PutObject"]:
                time.sleep(0.01)
            as_root("umount", "-f", "-l", mount.path)
            assert mount.wait() == 0, mount.log
            assert "Traceback" not in mount.log
            assert "is unmounted" in mount.log
            # Known as done, so that it is neither sent again nor kept as unsaved.
            assert proxy.counts()["PutObject"] == 1
        answer = minio_client.get_object(bucket, "file")
        assert answer.read() == b"whole"
        answer.close()
        answer.release_conn()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_what_is_open_and_unmounts(
    number: signal.Signals, place: Place, minio_client: Minio
) -> None:
    pid = mounted(place)
    with writing(place.mountpoint / "unfinished", "half a sentence"):
        os.kill(pid, number)
        wait_gone(pid)
    assert not is_mounted(place.mountpoint)
    answer = minio_client.get_object(place.bucket, "unfinished")
    assert answer.read() == b"half a sentence"
    answer.close()
    answer.release_conn()


def test_a_foreground_mount_exits_with_0_after_sigterm(
    tmp_path: Path, seaweed: SeaweedServer, bucket: str
) -> None:
    with Mount(
        bucket, tmp_path, endpoint=seaweed.endpoint, environment=seaweed.environment
    ) as mount:
        (mount.path / "file").write_text("hello")
        assert mount.terminate() == 0
        assert not is_mounted(mount.path)
        assert "is unmounted" in mount.log


def test_a_read_that_hangs_does_not_hold_a_mount_that_ends(
    tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(bytes(100_000)), 100_000)
    with (
        Proxy(seaweed.host) as proxy,
        Mount(
            bucket,
            tmp_path,
            endpoint=proxy.endpoint,
            environment=seaweed.environment,
            stall_timeout="60s",
        ) as mount,
        ThreadPoolExecutor(1) as reader,
    ):
        proxy.faults.append(Fault(operation="GetObject", times=None, stall_head=0))
        answer = reader.submit((mount.path / "file").read_bytes)
        while not proxy.faults[0].hits:
            time.sleep(0.01)
        began = time.monotonic()
        assert mount.terminate() == 0
        assert time.monotonic() - began < 30
        with pytest.raises(OSError):
            answer.result()


def test_sighup_rereads_the_log_level_and_reopens_the_log(place: Place) -> None:
    config = place.root / "mount.toml"
    config.write_text('log-level = "error"\n')
    pid = mounted(place, "--config", str(config))
    log = place.root / "log"
    assert log.read_text() == ""
    config.write_text('log-level = "info"\n')
    log.rename(place.root / "log.1")
    os.kill(pid, signal.SIGHUP)
    umount(place)
    assert "credentials and log level were read again" in log.read_text()


def test_sigusr1_writes_down_what_every_task_waits_for(place: Place) -> None:
    os.kill(mounted(place), signal.SIGUSR1)
    assert list(place.mountpoint.iterdir()) == []
    umount(place)
    log = (place.root / "log").read_text()
    assert "asked by SIGUSR1 what every task waits for" in log
    assert "pyfuse3" in log


def test_what_a_killed_daemon_left_is_unmounted_and_mounted_again(place: Place) -> None:
    os.kill(pid := mounted(place), signal.SIGKILL)
    wait_gone(pid)
    assert is_mounted(place.mountpoint)
    with pytest.raises(OSError, match="not connected"):
        place.mountpoint.stat()
    mounted(place)
    log = (place.root / "log").read_text()
    assert log.count("was left behind by a daemon that is gone") == 1
    assert list(place.mountpoint.iterdir()) == []
    umount(place)
    assert not is_mounted(place.mountpoint)


def test_a_dead_mount_can_be_unmounted(place: Place) -> None:
    os.kill(pid := mounted(place), signal.SIGKILL)
    wait_gone(pid)
    umount(place)


def test_a_killed_mount_that_was_looked_at_is_mounted_again_at_once(place: Place) -> None:
    """The kernel would show what it was told of the mount for as long as that was fresh."""
    pid = mounted(place, "--metadata-ttl", "5m")
    (place.mountpoint / "f").write_bytes(b"1")
    assert (place.mountpoint / "f").read_bytes() == b"1"
    place.mountpoint.stat()
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    mounted(place)
    assert (place.mountpoint / "f").read_bytes() == b"1"
    umount(place)


def test_a_prefix_with_which_no_key_begins_is_told(place: Place) -> None:
    place.bucket = f"{place.bucket}/modles"
    first = place.mount()
    assert first.code == 0
    told = "no key in the bucket begins with 'modles/', so nothing is in the mount"
    assert first.err == f"ossfs-py: warning: {told}: is the prefix spelt right?\n"
    assert told in (place.root / "log").read_text()
    (place.mountpoint / "file").write_bytes(b"1")
    umount(place)
    mounted(place)
    umount(place)


def test_what_could_not_be_saved_is_told_wherever_a_person_looks(
    place: Place, seaweed: SeaweedServer
) -> None:
    with Proxy(seaweed.host) as proxy:
        place.flags["--endpoint"] = proxy.endpoint
        mounted(place)
        proxy.faults.append(
            Fault(operation="PutObject", times=None, status=403, code="AccessDenied")
        )
        with pytest.raises(OSError, match="Permission denied"):
            (place.mountpoint / "lost").write_bytes(b"half a sentence")

        def told(*command: str | Path) -> str:
            outcome = ossfs(*command, environment={})
            assert outcome.code == 0
            return " ".join(outcome.out.split())

        deadline = time.monotonic() + TIMEOUT_SECONDS
        # The file is given up when its last descriptor goes, which close(2) does not wait for.
        while '"unsaved_files": 1' not in told("list", "--json"):
            assert time.monotonic() < deadline
        assert "(ossfs-py recover)" in told("list")
        assert "Unsaved files 0, and 1 given up (ossfs-py recover)" in told(
            "stats", "--once", place.mountpoint
        )
        outcome = ossfs("umount", place.mountpoint, environment={})
        kept = f"1 file that could not be saved is kept in {place.root / 'state'}"
        assert outcome.code == 1
        assert f"{place.mountpoint} is unmounted, but {kept}" in outcome.sentence
        assert f"ossfs-py recover --state-dir {place.root / 'state'}" in outcome.sentence
        again = place.mount()
        assert again.code == 0
        assert f"warning: from an earlier mount: {kept}" in again.err
        assert len(again.err.splitlines()) == 1
        assert ossfs("umount", place.mountpoint, environment={}).code == 1


def test_unmounting_by_force_keeps_what_the_store_does_not_take(
    place: Place, seaweed: SeaweedServer
) -> None:
    with Proxy(seaweed.host) as proxy:
        place.flags["--endpoint"] = proxy.endpoint
        pid = mounted(place)
        with writing(place.mountpoint / "lost", "half a sentence"):
            proxy.faults.append(Fault(operation="PutObject", times=None, status=503))
            outcome = ossfs(
                "umount", place.mountpoint, "--force", "--timeout", "30s", environment={}
            )
            assert outcome.code == 1
            assert "1 file that could not be saved is kept" in outcome.sentence
        assert str(pid) not in daemons_of(place.mountpoint)
    kept = [path.read_bytes() for path in (place.root / "state").rglob("*") if path.is_file()]
    assert b"half a sentence" in kept


def test_an_ordinary_user_mounts_and_unmounts(seaweed: SeaweedServer, bucket: str) -> None:
    wrapper = as_ordinary_user() if os.geteuid() == 0 else []
    with open_fuse_device(), tempfile.TemporaryDirectory() as root:
        place = Place(Path(root), seaweed.endpoint, bucket, seaweed.environment)
        for path in (place.root, *place.root.iterdir()):
            os.chown(path, *ordinary_user())
        outcome = place.mount(wrapper=wrapper)
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
        listed = subprocess.run(
            [*wrapper, "ls", "-la", place.mountpoint], check=True, capture_output=True, text=True
        )
        assert listed.stdout.startswith("total")
        outcome = ossfs("umount", place.mountpoint, environment={}, wrapper=wrapper)
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
        assert daemons_of(place.mountpoint) == []


def test_unmounted_as_soon_as_it_appears_it_ends_well(place: Place) -> None:
    """The kernel shows a mount a moment before its daemon has finished preparing it."""
    del place.flags["--log-file"]
    flags = [word for flag in place.flags.items() for word in flag]
    for _ in range(6):
        command = [sys.executable, "-m", "ossfs_py", "mount", place.bucket, str(place.mountpoint)]
        daemon = subprocess.Popen(
            [*command, "--foreground", *flags],
            env={**os.environ, **place.keys},
            stderr=subprocess.PIPE,
            text=True,
        )
        while not is_mounted(place.mountpoint):
            assert daemon.poll() is None
        daemon.send_signal(signal.SIGSTOP)
        as_root("umount", "-l", place.mountpoint)
        daemon.send_signal(signal.SIGCONT)
        _, log = daemon.communicate(timeout=300)
        assert daemon.returncode == 0, log
        assert "ERROR" not in log
