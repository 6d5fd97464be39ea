"""However reads of one file are interleaved, each gives the plain bytes: hypothesis on a mount."""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minio import Minio

from tests.support.mounting import Mount

MIB = 1024**2
SIZE = 20 * MIB + 333
CONTENT = os.urandom(SIZE)
READERS = 3


@dataclass(frozen=True)
class Step:
    """``pread`` and ``map`` compare bytes; ``will need`` and ``drop`` are advice to the kernel."""

    kind: str
    place: float
    size: int

    @property
    def start(self) -> int:
        return int(self.place * (SIZE - 1))

    @property
    def end(self) -> int:
        return min(SIZE, self.start + self.size)


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["pread", "pread", "map", "will need", "drop"]),
        st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        st.sampled_from([1, 4096, 131_072, 1_000_000, 5 * MIB]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def path(mounted: Mount, minio_client: Minio) -> Path:
    """A file whose bytes another client has stored; a name that is read ahead as a model is."""
    bucket, _, prefix = mounted.source.partition("/")
    minio_client.put_object(bucket, f"{prefix}/any.bin", BytesIO(CONTENT), SIZE)
    return mounted.path / "any.bin"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shared=st.booleans(), readers=st.lists(STEPS, min_size=1, max_size=READERS))
def test_any_interleaving_gives_the_plain_bytes(
    path: Path, shared: bool, readers: list[list[Step]]
) -> None:
    with ExitStack() as opened, ThreadPoolExecutor(READERS) as threads:
        files = [opened.enter_context(path.open("rb", buffering=0)) for _ in readers]
        descriptors = [(files[0] if shared else file).fileno() for file in files]
        list(threads.map(follow, descriptors, readers))


def follow(fd: int, steps: list[Step]) -> None:
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapping:
        for step in steps:
            length = step.end - step.start
            if step.kind == "pread":
                got = os.pread(fd, length, step.start)
            elif step.kind == "map":
                got = mapping[step.start : step.end]
            else:
                needed = step.kind == "will need"
                advice = os.POSIX_FADV_WILLNEED if needed else os.POSIX_FADV_DONTNEED
                os.posix_fadvise(fd, step.start, length, advice)
                continue
            assert got == CONTENT[step.start : step.end], step
