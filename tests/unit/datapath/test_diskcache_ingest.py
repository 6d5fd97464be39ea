"""What this mount wrote is taken into the cache from where it was staged."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import pytest

from ossfs_py.model import ObjectVersion
from tests.support.commands import tmpfs
from tests.unit.datapath.caching import (
    BLOCK,
    content,
    counted_bytes,
    disk_bytes,
    load,
    make_store,
)

VERSION = ObjectVersion("checkpoint", "new", 5000 * BLOCK + 77)


def staged(directory: Path, data: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by the test
    file.write(data)
    file.flush()
    return file


def test_a_written_file_is_read_without_the_network(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with staged(tmp_path, content(VERSION)) as source:
        assert store.ingest(VERSION, source.fileno(), lambda: True) == VERSION.size
    assert load(store, VERSION).fetched == 0
    assert counted_bytes(store) == disk_bytes(tmp_path)
    store.close()


def test_a_file_on_another_file_system_is_taken_in_as_well(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with (
        tmpfs(tmp_path / "other", "size=64m") as other,
        staged(other, content(VERSION)) as source,
    ):
        assert store.ingest(VERSION, source.fileno(), lambda: True) == VERSION.size
    assert load(store, VERSION).fetched == 0
    store.close()


@pytest.mark.parametrize("batch", [0, 1])
def test_nothing_is_kept_of_what_was_copied_after_a_change(tmp_path: Path, batch: int) -> None:
    store = make_store(tmp_path)
    with staged(tmp_path, content(VERSION)) as source:
        asked = 0

        def unchanged() -> bool:
            nonlocal asked
            asked += 1
            if asked == batch:
                source.seek(0)
                source.write(bytes(VERSION.size))
                source.flush()
            return asked <= batch

        kept = store.ingest(VERSION, source.fileno(), unchanged)
    assert (kept > 0) == (batch > 0)
    assert store.share(VERSION) == kept < VERSION.size
    load(store, VERSION)
    store.close()


def test_a_source_that_ends_early_is_not_believed(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with staged(tmp_path, content(VERSION)[: BLOCK * 2500]) as source:
        kept = store.ingest(VERSION, source.fileno(), lambda: True)
    assert kept <= BLOCK * 2500
    load(store, VERSION)
    store.close()


def test_only_what_fits_is_taken_in(tmp_path: Path) -> None:
    limit = 3000 * BLOCK
    store = make_store(tmp_path, limit=limit)
    with staged(tmp_path, content(VERSION)) as source:
        kept = store.ingest(VERSION, source.fileno(), lambda: True)
    assert 0 < kept <= limit
    assert disk_bytes(tmp_path) <= limit
    load(store, VERSION)
    store.close()


TAKES_IN = """
import sys
import tempfile
import threading
from pathlib import Path

from ossfs_py.model import ObjectVersion
from tests.unit.datapath.caching import make_store

def resident_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

store = make_store(Path(sys.argv[1]), block=1024**2)

def take_in(name):
    for number in range(3):
        version = ObjectVersion(f"{name}{number}", "etag", size)
        assert store.ingest(version, source.fileno(), lambda: True) == size

def take_in_everywhere():
    threads = [threading.Thread(target=take_in, args=(f"{size}-{n}-",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

with tempfile.TemporaryFile(dir=sys.argv[1]) as source:
    source.truncate(9 * 1024**2)
    size = 4096
    take_in_everywhere()
    before = resident_kib()
    size = 9 * 1024**2
    take_in_everywhere()
    print(resident_kib() - before)
"""


def test_what_was_taken_in_leaves_no_memory_to_the_threads_that_did_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKES_IN, str(tmp_path)]
    kept_kib = int(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    assert kept_kib < 8192  # before, each of the four threads kept that much and more
