"""Many programs of all sorts on one mount at once: each sees what it would on a local disk.

``OSSFS_PY_SOAK_CROWD`` says how many processes on each data path, ``OSSFS_PY_SOAK_CROWD_SECONDS``
for how long, ``OSSFS_PY_SOAK_SEED`` with which data.
"""

import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.soak.crowd import COMMON, MIB, SHARED, WORKS
from tests.support.recovering import names, stored

PROCESSES = int(os.environ.get("OSSFS_PY_SOAK_CROWD", len(WORKS)))
SECONDS = float(os.environ.get("OSSFS_PY_SOAK_CROWD_SECONDS", "3"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
SHARED_SIZES = (1000, MIB, 9 * MIB, 40 * MIB)
PATIENCE_SECONDS = 60.0
"""For the last round of each process; what takes longer hangs, on a busy machine too."""


@pytest.mark.timeout(300 + 2 * SECONDS + PROCESSES * PATIENCE_SECONDS)
def test_a_crowd_of_programs_sees_what_a_local_disk_would_show(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path=data_path)
    rng = random.Random(SEED)
    for directory in (SHARED, COMMON):
        (mounted.path / directory).mkdir()
    for size in SHARED_SIZES:
        data = rng.randbytes(size)
        (mounted.path / SHARED / hashlib.sha256(data).hexdigest()).write_bytes(data)
    crowd = []
    for number, work in zip(range(PROCESSES), itertools.cycle(WORKS), strict=False):
        mine = mounted.path / str(number)
        mine.mkdir()
        command = [sys.executable, "-m", "tests.soak.crowd", work, str(mine)]
        command += [str(SECONDS), str(SEED + number)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        crowd.append((work, process))
    rounds: Counter[str] = Counter()
    problems = []
    for work, process in crowd:
        out, err = process.communicate(timeout=SECONDS + 60 + PROCESSES * PATIENCE_SECONDS)
        if process.returncode == 0:
            rounds[work] += int(out)
        else:
            problems.append(f"{work}: {process.returncode}\n{err[-3000:]}")
    print(f"{data_path}: {PROCESSES} processes, rounds {dict(rounds)}")  # noqa: T201 - for -s
    assert not problems, "\n".join(problems)
    assert mounted.unmount() == 0
    shared = [key for key in names(minio_client, bucket) if key.startswith(f"{SHARED}/")]
    found = {
        hashlib.sha256(stored(minio_client, bucket, key)).hexdigest()
        for key in shared
        if key[-1] != "/"
    }
    assert found == {key.partition("/")[2] for key in shared if key[-1] != "/"}
    assert len(found) == len(SHARED_SIZES)
