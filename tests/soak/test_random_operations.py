"""Whatever programs do to files, the mount and the store hold what a local disk would.

``OSSFS_PY_SOAK_STEPS`` says how many operations are done on each data path, and
``OSSFS_PY_SOAK_SEED`` which ones.
"""

import itertools
import os
import random

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.soak.exerciser import exercise
from tests.support.seaweed import SeaweedServer, give_back_space

STEPS = int(os.environ.get("OSSFS_PY_SOAK_STEPS", "500"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
SECONDS_PER_STEP = 0.5
FETCHES_UNTIL_VACUUM = 20
"""After 10,000 steps, before what they overwrote fills the disk."""


@pytest.mark.timeout(600 + STEPS * SECONDS_PER_STEP)
def test_random_operations_leave_what_a_local_disk_would(
    mount: MountFactory,
    bucket: str,
    data_path: str,
    minio_client: Minio,
    seaweed: SeaweedServer,
) -> None:
    lane = "off" if data_path == "cache" else "auto"
    mounted = mount(bucket, data_path=data_path, fuse_lane=lane)
    fetches = itertools.count(1)

    def fetch(name: str) -> bytes:
        if next(fetches) % FETCHES_UNTIL_VACUUM == 0:
            give_back_space(seaweed)
        answer = minio_client.get_object(bucket, name)
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    exercise(mounted.path, fetch, STEPS, random.Random(SEED))
    assert mounted.unmount() == 0
