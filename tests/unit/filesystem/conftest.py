"""Thousands of mounts without a kernel: their directories are in memory, if it can be had."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.filesystems import IN_MEMORY

ROOM_BYTES = 512 * 1024**2
"""Many times what any of these tests writes; containers often have 64 MiB."""


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of this test's own."""
    if IN_MEMORY is None or shutil.disk_usage(IN_MEMORY).free < ROOM_BYTES:
        yield tmp_path_factory.mktemp("test")
        return
    with tempfile.TemporaryDirectory(prefix="ossfs-py-test.", dir=IN_MEMORY) as directory:
        yield Path(directory)
