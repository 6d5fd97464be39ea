"""The works that are measured: what a program does with a mounted directory.

Each is run in a forked process of its own, so that one that dies or hangs ends alone.
"""

import concurrent.futures
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file

from tests.bench.content import (
    CHECKPOINT,
    CROWDED,
    MIB,
    MODEL,
    SHARDS,
    SMALL,
    TREE,
    Content,
)

READ_BYTES = 8 * MIB
RANDOM_READS = 100
POSITIONS = 8
TURN_BYTES = MIB // 4
PROCESSES = 8


class WorkFailedError(Exception):
    """The work died, hung, or read wrong bytes."""


@dataclass(frozen=True)
class Work:
    """``run`` is timed, ``prepare`` is not; ``check`` verifies content in an extra, untimed run."""

    name: str
    run: Callable[[Path, Content], None]
    prepare: Callable[[Path, Content], None] | None = None
    check: Callable[[Path, Content], None] | None = None
    per: int = 1
    """How many single operations one run holds; the time is given for one of them."""
    writes: bool = False
    """Whether the run is only done when the store has the bytes."""
    makes: tuple[str, ...] = ()
    """Objects that are deleted before each run, so that none replaces what another one wrote."""


def read_sequentially(root: Path, content: Content) -> None:
    buffer = bytearray(READ_BYTES)
    with (root / MODEL).open("rb", buffering=0) as source:
        while source.readinto(buffer):
            pass


def check_model(root: Path, content: Content) -> None:
    digest = xxhash.xxh3_128()
    with (root / MODEL).open("rb", buffering=0) as source:
        while block := source.read(READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != content.model_digest:
        raise WorkFailedError("the model's bytes are wrong")


def load_safetensors(root: Path, content: Content) -> None:
    with safe_open(root / MODEL, framework="pt") as tensors:
        _touch(tensors, list(tensors.keys()))


def load_shuffled(root: Path, content: Content) -> None:
    with safe_open(root / MODEL, framework="pt") as tensors:
        names = list(tensors.keys())
        random.Random(29).shuffle(names)
        _touch(tensors, names)


def _touch(tensors: Any, names: list[str]) -> None:
    for name in names:
        # clone() touches every page, which the lazily mapped tensor does not.
        tensors.get_tensor(name).clone()


def load_whole(root: Path, content: Content) -> None:
    # Tensors are mapped lazily: only copying them reads the file.
    for tensor in load_file(root / MODEL).values():
        tensor.clone()


def load_checkpoint(*, mapped: bool) -> Callable[[Path, Content], None]:
    def run(root: Path, content: Content) -> None:
        state = torch.load(root / CHECKPOINT, mmap=mapped, weights_only=True)
        if mapped:  # nothing is read until it is touched
            for tensor in state.values():
                tensor.clone()

    return run


def load_shards(root: Path, content: Content) -> None:
    for shard in SHARDS:
        for tensor in load_file(root / shard).values():
            tensor.clone()


def run_programs(calls: list[Callable[[], None]]) -> None:
    """Each call in a process of its own, all at once."""
    context = multiprocessing.get_context("fork")
    programs = [context.Process(target=call) for call in calls]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    if any(program.exitcode for program in programs):
        raise WorkFailedError("a program failed")


def touch_every_page(root: Path) -> None:
    """What a loader does that copies straight to a device: nothing is kept in memory here."""
    with safe_open(root / MODEL, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            tensors.get_tensor(name).reshape(-1)[::4096].max()


def load_from_processes(root: Path, content: Content) -> None:
    run_programs([partial(touch_every_page, root)] * PROCESSES)


def read_interleaved(root: Path, content: Content) -> None:
    fd = os.open(root / MODEL, os.O_RDONLY)
    share = content.model_size // POSITIONS
    for turn in range(0, share, TURN_BYTES):
        for position in range(POSITIONS):
            os.pread(fd, min(TURN_BYTES, share - turn), position * share + turn)
    os.close(fd)


def read_after_dropping_pages(root: Path, content: Content) -> None:
    read_sequentially(root, content)
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")


def read_quarters(root: Path, content: Content) -> None:
    fd = os.open(root / MODEL, os.O_RDONLY)
    quarter = content.model_size // 4

    def read(number: int) -> None:
        for offset in range(number * quarter, (number + 1) * quarter, READ_BYTES):
            os.pread(fd, min(READ_BYTES, (number + 1) * quarter - offset), offset)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(read, range(4)))
    os.close(fd)


def read_shard(root: Path, name: str) -> None:
    buffer = bytearray(READ_BYTES)
    with (root / name).open("rb", buffering=0) as source:
        while source.readinto(buffer):
            pass


def read_four_files(root: Path, content: Content) -> None:
    run_programs([partial(read_shard, root, name) for name in SHARDS])


def list_crowded(root: Path, content: Content) -> None:
    done = subprocess.run(["ls", "-l", str(root / CROWDED)], capture_output=True, check=False)
    shown = done.stdout.count(b".dat")
    if done.returncode or shown != content.sizes.crowded_files:
        raise WorkFailedError(f"ls showed {shown} files: {done.stderr.decode()[-60:]}")


def read_randomly(root: Path, content: Content) -> None:
    fd = os.open(root / MODEL, os.O_RDONLY)
    positions = random.Random(17)
    for _ in range(RANDOM_READS):
        os.pread(fd, 4096, positions.randrange(content.model_size // 4096) * 4096)
    os.close(fd)


def walk(root: Path, content: Content) -> None:
    found = sum(
        1
        for directory, _, names in os.walk(root / TREE)
        for name in names
        if os.stat(f"{directory}/{name}").st_size == 1000  # noqa: PTH116 - the system call alone
    )
    if found != content.sizes.tree_directories * content.sizes.files_per_directory:
        raise WorkFailedError(f"the walk found {found} files")


def read_small(readers: int) -> Callable[[Path, Content], None]:
    def run(root: Path, content: Content) -> None:
        names = sorted(path.name for path in (root / SMALL).iterdir())
        if readers > 1:
            random.Random(19).shuffle(names)
        with concurrent.futures.ThreadPoolExecutor(readers) as threads:
            bodies = dict(
                zip(
                    names,
                    threads.map(lambda n: (root / SMALL / n).read_bytes(), names),
                    strict=True,
                )
            )
        digests = tuple(xxhash.xxh3_128_hexdigest(bodies[name]) for name in sorted(names))
        if digests != content.small_digests:
            raise WorkFailedError("a small file's bytes are wrong")

    return run


READ_WORKS = (
    Work("one sequential reader", read_sequentially, check=check_model),
    Work("safetensors, every tensor", load_safetensors),
    Work("safetensors, shuffled tensors", load_shuffled),
    Work("safetensors load_file", load_whole),
    Work("safetensors, 4 shards in turn", load_shards),
    Work("safetensors from 8 processes", load_from_processes),
    Work("torch.load", load_checkpoint(mapped=False)),
    Work("torch.load, mapped", load_checkpoint(mapped=True)),
    Work("4 quarters, one descriptor", read_quarters),
    Work("4 files at once", read_four_files),
    Work("8 interleaved positions", read_interleaved),
    Work("the same read again, warm", read_sequentially, prepare=read_sequentially),
    Work("read again, page cache dropped", read_sequentially, prepare=read_after_dropping_pages),
    Work("random 4 KiB read, each", read_randomly, per=RANDOM_READS),
    Work("walk and stat the tree", walk),
    Work("ls -l of a crowded directory", list_crowded),
    Work("small files, 1 reader", read_small(1)),
    Work("small files, 16 readers", read_small(16)),
)


def run_forked(action: Callable[[Path, Content], None], root: Path, content: Content) -> float:
    """Seconds of one run in a process of its own.

    Raises:
        WorkFailedError: it died, hung, or found wrong bytes.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(action, root, content, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(content.sizes.longest_seconds):
            raise WorkFailedError(f"> {content.sizes.longest_seconds:.0f} s")
        outcome: float | str = receiver.recv()
    except EOFError:
        process.join()
        raise WorkFailedError(f"died with exit code {process.exitcode}") from None
    finally:
        process.kill()
        receiver.close()
    process.join()
    if isinstance(outcome, str):
        raise WorkFailedError(outcome)
    return outcome


def _child(
    action: Callable[[Path, Content], None], root: Path, content: Content, sender: Connection
) -> None:
    began = time.perf_counter()
    try:
        action(root, content)
    except (WorkFailedError, OSError) as exc:
        sender.send(str(exc))
    else:
        sender.send(time.perf_counter() - began)
