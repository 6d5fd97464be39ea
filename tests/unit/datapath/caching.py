"""A reader of the disk cache whose right answers are known, for tests and their processes."""

import os
import random
from functools import lru_cache
from pathlib import Path

from ossfs_py.datapath.diskcache.layout import PLAIN_SUFFIX, is_block_file_name
from ossfs_py.datapath.diskcache.openversion import CachedVersion
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.secondhome import BlockLostError
from ossfs_py.telemetry.metrics import Metrics

BLOCK = 4096
ROOMY = 1 << 40


def make_store(
    cache_dir: Path,
    *,
    limit: int = ROOMY,
    min_free: int = 0,
    block: int = BLOCK,
    bucket: str = "bucket",
) -> BlockStore:
    return BlockStore(
        cache_dir,
        "http://store",
        bucket,
        limit_bytes=limit,
        min_free_bytes=min_free,
        metrics=Metrics(),
        block_size_bytes=block,
    )


@lru_cache(maxsize=64)
def content(version: ObjectVersion) -> bytes:
    """What the store would answer for the whole version."""
    return random.Random(f"{version.key}/{version.etag}").randbytes(version.size)


def open_version(store: BlockStore, version: ObjectVersion) -> CachedVersion:
    identity = store.identity(version)
    assert identity is not None
    return CachedVersion(store, identity)


class Reading:
    """Reads as VersionReader does: from disk what is there, from the network what is not."""

    def __init__(self, store: BlockStore, version: ObjectVersion) -> None:
        self.version = version
        self.cached = open_version(store, version)
        self.fetched = 0
        self.lost = 0

    def read(self, start: int, end: int) -> bytes:
        answer = bytearray(end - start)
        grain = self.cached.granularity_bytes
        position = start - start % grain
        while position < end:
            upto = min(self.version.size, -(-end // grain) * grain)
            present = self.cached.present_until(position)
            if present > position:
                piece = self._from_disk(position, min(upto, present))
            else:
                behind = self.cached.next_present(position)
                piece = self._from_network(position, upto if behind is None else min(upto, behind))
            low, high = max(position, start), min(position + len(piece), end)
            answer[low - start : high - start] = piece[low - position : high - position]
            position += len(piece)
        return bytes(answer)

    def _from_disk(self, start: int, end: int) -> bytes:
        buffer = bytearray(end - start)
        try:
            self.cached.load_into(start, memoryview(buffer))
        except BlockLostError:
            self.lost += 1
            self.cached.note_lost(start, end)
            return self._from_network(start, end)
        return bytes(buffer)

    def _from_network(self, start: int, end: int) -> bytes:
        self.fetched += end - start
        data = content(self.version)[start:end]
        if self.cached.keep(start, memoryview(data)):
            self.cached.note_kept(start, end)
        return data

    def read_all(self) -> bytes:
        return self.read(0, self.version.size)

    def check(self, start: int, end: int) -> None:
        assert self.read(start, end) == content(self.version)[start:end]

    def close(self) -> None:
        self.cached.close()


def load(store: BlockStore, version: ObjectVersion) -> Reading:
    """Read a whole version, check it, close it; tells what came from where."""
    reading = Reading(store, version)
    reading.check(0, version.size)
    reading.close()
    return reading


def block_files(cache_dir: Path) -> list[Path]:
    return sorted(p for p in (cache_dir / "blocks").glob("??/*") if is_block_file_name(p.name))


def disk_bytes(cache_dir: Path) -> int:
    """What the block files take on disk, counted from outside."""
    total = 0
    for path in [*block_files(cache_dir), *(cache_dir / "blocks").glob(f"??/*{PLAIN_SUFFIX}")]:
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def counted_bytes(store: BlockStore) -> int:
    """What the ledger says."""
    attachment = store.disk.attachment()
    assert attachment is not None
    with attachment.ledger.locked() as totals:
        return totals.used_bytes


def disk_bytes_now(store: BlockStore, cache_dir: Path) -> int:
    """What the block files take while nobody else may change that: one moment's truth."""
    attachment = store.disk.attachment()
    assert attachment is not None
    with attachment.ledger.locked():
        return disk_bytes(cache_dir)


def damage(path: Path, dice: random.Random) -> None:
    """What disks, crashes and people do to files."""
    size = path.stat().st_size
    action = dice.randrange(10)
    if action == 0:
        path.unlink()
    elif action == 1:
        os.truncate(path, dice.randrange(size + 1))
    elif action == 2:
        os.truncate(path, size + dice.randrange(10_000))
    else:
        with path.open("r+b") as file:
            for _ in range(dice.randrange(1, 20)):
                # Half of the flips hit the header and the records, where they hurt most.
                offset = dice.randrange(min(size, 400) if dice.random() < 0.5 else size or 1)
                file.seek(offset)
                byte = file.read(1) or b"\0"
                file.seek(offset)
                file.write(bytes([byte[0] ^ 1 << dice.randrange(8)]))
