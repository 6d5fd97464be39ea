"""One user asks for as much as can be asked: everybody else is served in turn."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.strangers import BECOME, ROOT

MIB = 1024**2
FLOOD = (
    "import random, threading\n"
    + BECOME
    + """
size = os.stat(sys.argv[2]).st_size
def read_on():
    fd = os.open(sys.argv[2], os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    while True:
        os.pread(fd, 4096, random.randrange(size - 4096))
for _ in range(300):
    threading.Thread(target=read_on, daemon=True).start()
print('going', flush=True)
sys.stdin.read()
os._exit(0)
"""
)


@pytest.fixture
def endpoint(proxy: Proxy) -> str:
    return proxy.endpoint


def test_who_reads_with_hundreds_of_threads_does_not_keep_others_from_reading(
    shared: Callable[..., Mount], proxy: Proxy
) -> None:
    mounted = shared(data_path="direct", memory_limit="64MiB")
    (mounted.path / "large").write_bytes(os.urandom(128 * MIB))
    contents = {f"{number}": os.urandom(MIB) for number in range(5)}
    for name, content in contents.items():
        (mounted.path / name).write_bytes(content)
    proxy.keep_exchanges = False
    proxy.faults.append(Fault("GetObject", times=None, delay_seconds=0.02))
    flood = subprocess.Popen(
        [*ROOT, sys.executable, "-c", FLOOD, "65534", mounted.path / "large"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    assert flood.stdout is not None
    try:
        assert flood.stdout.readline() == b"going\n"
        for name, content in contents.items():
            began = time.monotonic()
            with (mounted.path / name).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert file.read() == content
            assert time.monotonic() - began < 30
    finally:
        flood.communicate()
