"""A daemon that is killed, whatever it was doing: no program hangs, what was acknowledged is there,
and the bucket can be mounted again. With the lane and without."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from io import BytesIO

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.faults import Fault
from tests.support.proxy import Proxy

SIZE = 300_000
SECONDS = 60
GONE = {errno.ENOTCONN, errno.ECONNABORTED}
WRITES = "fd = os.open(path + '/new', os.O_CREAT | os.O_WRONLY); os.write(fd, b'x')\n"
STATES = {
    # What of the store it waits for, what the program does, and how that may end.
    "a lookup": ("HeadObject", "os.stat(path + '/file')", GONE),
    "a listing": ("ListObjects", "os.listdir(path)", GONE),
    "a read": (
        "GetObject",
        "os.pread(os.open(path + '/file', os.O_RDONLY), 4096, 200_000)",
        {*GONE, errno.EIO},
    ),
    "a read past the pages": (
        "GetObject",
        "os.preadv(os.open(path + '/file', os.O_RDONLY | os.O_DIRECT), [mmap.mmap(-1, 4096)], 0)",
        GONE,
    ),
    "a page fault": (
        "GetObject",
        "fd = os.open(path + '/file', os.O_RDONLY)\nmmap.mmap(fd, 0, prot=mmap.PROT_READ)[200_000]",
        {-signal.SIGBUS},
    ),
    "a close": ("PutObject", WRITES + "os.close(fd)", GONE),
    "an fsync": ("PutObject", WRITES + "os.fsync(fd)", GONE),
    "a removal": ("DeleteObject", "os.unlink(path + '/file')", GONE),
}
PROGRAM = """
import mmap, os, sys
path = sys.argv[1]
try:
    exec(sys.argv[2])
except OSError as exc:
    os._exit(exc.errno)  # not to close what it has open
os._exit(0)
"""


@pytest.mark.parametrize("lane", ["auto", "off"])
@pytest.mark.parametrize("state", STATES)
def test_a_daemon_killed_in_any_state_leaves_nobody_waiting(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, lane: str, state: str
) -> None:
    operation, does, ends = STATES[state]
    minio_client.put_object(bucket, "file", BytesIO(bytes(SIZE)), SIZE)
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path="direct", fuse_lane=lane)
    (mounted.path / "kept").write_bytes(b"acknowledged")
    if operation != "HeadObject":
        (mounted.path / "file").stat()
    proxy.reset()
    goes_on = threading.Event()
    proxy.faults.append(Fault(operation, times=None, held_until=goes_on))
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, mounted.path, does])
    deadline = time.monotonic() + SECONDS
    while not proxy.counts()[operation]:
        assert time.monotonic() < deadline and program.poll() is None
        time.sleep(0.01)
    assert mounted.terminate(signal.SIGKILL) == -signal.SIGKILL
    assert program.wait(timeout=SECONDS) in ends
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(mounted.path)
    goes_on.set()
    proxy.faults.clear()
    mounted.close()
    again = mount(bucket, endpoint=proxy.endpoint, data_path="direct", fuse_lane=lane)
    assert (again.path / "kept").read_bytes() == b"acknowledged"
    if state == "a removal":
        assert not (again.path / "file").exists()  # the journal has it
    else:
        assert (again.path / "file").read_bytes() == bytes(SIZE)
