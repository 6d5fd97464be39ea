"""What the benchmark reads: one model, a tree to walk, small files; sizes and checksums."""

import concurrent.futures
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
import xxhash
from minio import Minio
from safetensors.numpy import save_file

from tests.support.stores import Store

MIB = 1024**2
BUCKET = "bench"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.pt"
SHARDS = tuple(f"model-{number:05}-of-00004.safetensors" for number in range(1, 5))
TREE = "tree"
SMALL = "small"
CROWDED = "crowded"
"""A directory of very many files."""
TENSOR_BYTES = 32 * MIB
PART_BYTES = 64 * MIB


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is."""

    model_bytes: int = 1024 * MIB
    written_bytes: int = 512 * MIB
    tree_directories: int = 20
    files_per_directory: int = 100
    small_files: int = 400
    small_bytes: int = 100_000
    crowded_files: int = 100_000
    longest_seconds: float = 40.0
    """A run that takes longer is reported as such: 30 times what most works take at best."""


@dataclass(frozen=True)
class Content:
    """Checksums of what was stored."""

    sizes: Sizes
    model_size: int
    model_digest: str
    small_digests: tuple[str, ...]


QUICK = Sizes(256 * MIB, 128 * MIB, 5, 40, 60, crowded_files=2_000, longest_seconds=15.0)


def crowded_names(sizes: Sizes) -> Sequence[str]:
    """Keys of the objects in the directory of very many. Each has a byte: an empty object may be a
    link, so each would be asked for."""
    return [f"{CROWDED}/{number:06}.dat" for number in range(sizes.crowded_files)]


def fill(client: Minio, sizes: Sizes, scratch: Path, store: Store) -> Content:
    """Create the bucket and store everything in it."""
    client.make_bucket(BUCKET)
    crowded = dict.fromkeys(crowded_names(sizes), b"x")
    if store.root is not None:
        for name in crowded:
            (store.root / BUCKET / quote(name, safe="")).write_bytes(b"x")
        store.reload()
        crowded.clear()
    random = np.random.default_rng(11)
    count = sizes.model_bytes // TENSOR_BYTES
    tensors = {
        f"layer.{number:03}": np.frombuffer(
            bytearray(random.bytes(TENSOR_BYTES)),  # torch wants memory that can be written
            np.uint8,
        ).reshape(-1, 4096)
        for number in range(count)
    }
    path = scratch / MODEL
    save_file(tensors, path)
    digest = xxhash.xxh3_128()
    with path.open("rb") as source:
        while block := source.read(8 * MIB):
            digest.update(block)
    model_size = path.stat().st_size
    client.fput_object(BUCKET, MODEL, str(path), part_size=PART_BYTES)
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)
    client.fput_object(BUCKET, CHECKPOINT, str(path), part_size=PART_BYTES)
    names = list(tensors)
    for number, shard in enumerate(SHARDS):
        save_file({name: tensors[name] for name in names[number :: len(SHARDS)]}, path)
        client.fput_object(BUCKET, shard, str(path), part_size=PART_BYTES)
    path.unlink()
    del tensors
    bodies = {
        f"{TREE}/{folder:02}/{number:03}.txt": b"x" * 1000
        for folder in range(sizes.tree_directories)
        for number in range(sizes.files_per_directory)
    }
    small = {
        f"{SMALL}/{number:04}.jpg": random.bytes(sizes.small_bytes)
        for number in range(sizes.small_files)
    }

    def put(item: tuple[str, bytes]) -> None:
        client.put_object(BUCKET, item[0], io.BytesIO(item[1]), len(item[1]))

    with concurrent.futures.ThreadPoolExecutor(16) as writers:
        list(writers.map(put, [*bodies.items(), *small.items(), *crowded.items()]))
    return Content(
        sizes,
        model_size,
        digest.hexdigest(),
        tuple(xxhash.xxh3_128_hexdigest(body) for body in small.values()),
    )
