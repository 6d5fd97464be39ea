"""A training job on a mount: worker processes read a tree of images, shuffled, epoch by epoch.

``OSSFS_PY_SCALE=1`` takes 5,000 files of 50 KB instead of 1,000 of 8 KB.
"""

import concurrent.futures
import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

CLASSES, IMAGES, IMAGE_BYTES = (
    (50, 100, 50_000) if "OSSFS_PY_SCALE" in os.environ else (20, 50, 8_000)
)
WORKERS = 8
WORKER_SECONDS = 120
READ_AND_COMPARE = """
import hashlib, sys
for line in sys.stdin:
    name, digest = line.split()
    with open(f"{sys.argv[1]}/{name}", "rb") as image:
        if hashlib.sha256(image.read()).hexdigest() != digest:
            sys.exit(f"{name} reads otherwise than it was stored")
"""
"""What a worker of a DataLoader does, without the decoding: open, read, close."""


@pytest.fixture(scope="module")
def images(
    seaweed: SeaweedServer, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Keys below ``train/`` and the SHA-256 of what is stored there."""
    source = tmp_path_factory.mktemp("images")

    def store(number: int) -> tuple[str, str]:
        name = f"class{number % CLASSES:02}/image{number:05}.jpeg"
        body = random.Random(number).randbytes(IMAGE_BYTES)
        (source / str(number)).write_bytes(body)
        seaweed.put_file(module_bucket, f"train/{name}", source / str(number))
        return name, hashlib.sha256(body).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        return dict(threads.map(store, range(CLASSES * IMAGES)))


def found_by_image_folder(root: Path) -> list[str]:
    """The samples in the way torchvision's ImageFolder looks for them."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    return [
        f"{name}/{file}"
        for name in classes
        for _, _, files in sorted(os.walk(root / name, followlinks=True))
        for file in sorted(files)
    ]


def read_by_workers(root: Path, digests: dict[str, str], samples: list[str]) -> None:
    """Each worker process takes every eighth sample; all of them have to be right."""
    workers = []
    try:
        for first in range(WORKERS):
            lines = "".join(f"{name} {digests[name]}\n" for name in samples[first::WORKERS])
            worker = subprocess.Popen(
                [sys.executable, "-S", "-c", READ_AND_COMPARE, root],
                stdin=subprocess.PIPE,
                text=True,
            )
            workers.append(worker)
            assert worker.stdin is not None
            with worker.stdin:
                worker.stdin.write(lines)
        assert [worker.wait(WORKER_SECONDS) for worker in workers] == [0] * WORKERS
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_the_second_epoch_of_eight_workers_costs_no_request(
    mount: MountFactory, proxy: Proxy, module_bucket: str, images: dict[str, str]
) -> None:
    mounted = mount(module_bucket, data_path="cache", endpoint=proxy.endpoint, metadata_ttl="1h")
    root = mounted.path / "train"
    proxy.reset()
    samples = found_by_image_folder(root)
    assert sorted(samples) == sorted(images)
    for epoch in range(2):
        random.Random(epoch).shuffle(samples)
        read_by_workers(root, images, samples)
        if epoch == 0:
            asked = [(one.operation, one.key) for one in proxy.exchanges]
            assert [key for operation, key in asked if operation == "HeadObject"] == ["train"]
            assert Counter(operation for operation, _ in asked)["GetObject"] == len(images)
            proxy.reset()
    assert proxy.counts().total() == 0
