"""Programs that a signal ends while they wait for the store, on real mounts."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.holding import asked, held, wait_for
from tests.support.mounting import END_SECONDS
from tests.support.proxy import Fault, Proxy
from tests.support.recovering import names

GONE_SECONDS = 20.0
"""Far less than the store takes, which does not answer until it is told to."""
BYTES = 12 * 1024**2
FSYNC = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(descriptor, bytes(int(sys.argv[2])))
print("waits", flush=True)
os.fsync(descriptor)
"""
CLOSE = FSYNC.replace("os.fsync(descriptor)", "os.close(descriptor)")
EXIT = FSYNC.replace("os.fsync(descriptor)", "os._exit(3)")
THREADS = """
import os, sys, threading, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(descriptor, bytes(int(sys.argv[2])))
threading.Thread(target=os.fsync, args=[descriptor]).start()
print("waits", flush=True)
time.sleep(1000)
"""


def waiting(code: str, path: Path, size: int) -> "subprocess.Popen[str]":
    """A program that is about to wait for the store."""
    program = subprocess.Popen(
        [sys.executable, "-c", code, path, str(size)],
        stdout=subprocess.PIPE,
        text=True,
        restore_signals=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "waits\n"
    program.stdout.close()
    return program


@pytest.mark.parametrize("size", [1000, BYTES], ids=["put", "parts"])
def test_a_program_that_is_killed_while_it_waits_is_gone_and_its_file_is_stored(
    mount: MountFactory,
    proxy: Proxy,
    minio_client: Minio,
    bucket: str,
    data_path: str,
    size: int,
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    operation = "PutObject" if size < BYTES else "UploadPart"
    programs = {
        "fsync": (FSYNC, signal.SIGKILL),
        "close": (CLOSE, signal.SIGKILL),
        "terminated": (FSYNC, signal.SIGTERM),
        "threads": (THREADS, signal.SIGTERM),
    }
    if size == BYTES:
        programs = {"fsync": programs["fsync"], "close": programs["close"]}
    with held(proxy, operation, *programs):
        for name, (code, number) in programs.items():
            program = waiting(code, mounted.path / name, size)
            wait_for(partial(asked, proxy, operation, name))
            program.send_signal(number)
            assert program.wait(GONE_SECONDS) == -number
    wait_for(lambda: names(minio_client, bucket) == sorted(programs))
    for name in programs:
        assert minio_client.stat_object(bucket, name).size == size


def test_a_program_that_exits_by_itself_still_waits_for_its_file(
    mount: MountFactory, proxy: Proxy, minio_client: Minio, bucket: str, data_path: str
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    with held(proxy, "PutObject", "file") as gate:
        program = waiting(EXIT, mounted.path / "file", 1000)
        wait_for(lambda: asked(proxy, "PutObject", "file"))
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(1.0)  # five times what a killed one takes
        gate.set()
        assert program.wait(END_SECONDS) == 3
    assert names(minio_client, bucket) == ["file"]


def test_what_a_killed_programs_upload_could_not_store_is_kept_as_unsaved(
    mount: MountFactory, proxy: Proxy, bucket: str, data_path: str
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    refusing = Fault("PutObject", times=None, status=403, code="AccessDenied")
    with held(proxy, "PutObject", "file"):
        program = waiting(FSYNC, mounted.path / "file", 1000)
        wait_for(lambda: asked(proxy, "PutObject", "file"))
        program.kill()
        assert program.wait(GONE_SECONDS) == -signal.SIGKILL
        proxy.faults.append(refusing)  # of those that follow
        for fault in proxy.faults:
            fault.status, fault.code = 403, "AccessDenied"  # and of the one that is held
    wait_for(lambda: "its data is kept in" in mounted.log)
    proxy.faults.remove(refusing)
    assert len(list(mounted.state_dir.glob("*/unsaved/*.data"))) == 1


def test_rm_waits_in_the_kernel_for_fsync_only_as_long_as_its_program_lives(
    mount: MountFactory, proxy: Proxy, minio_client: Minio, bucket: str, data_path: str
) -> None:
    """Linux holds the file's lock during FUSE_FSYNC: the daemon does not hear of the unlink."""
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    file = mounted.path / "file"
    with held(proxy, "PutObject", "file"):
        program = waiting(FSYNC, file, 1000)
        wait_for(lambda: asked(proxy, "PutObject", "file"))
        with subprocess.Popen(["rm", file]) as remover:
            program.kill()
            assert remover.wait(GONE_SECONDS) == 0
        assert program.wait(GONE_SECONDS) == -signal.SIGKILL
        assert not file.exists()
    assert mounted.unmount() == 0
    assert names(minio_client, bucket) == []
