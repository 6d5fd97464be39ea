"""The works that write: checkpoints, several programs at once, small changes, many small files.

They come after the works that read, as some of them change what those have read.
"""

import concurrent.futures
import os
import random
import subprocess
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.bench.content import MIB, MODEL, TREE, Content
from tests.bench.works import Work, WorkFailedError, run_programs

BLOCK_BYTES = 4 * MIB
WRITERS = 16
TENSORS = 16
WRITTEN = "written.bin"
UNPACKED = "unpacked"
TREE_FILES = 10
"""In each directory of a tree that is made and removed."""
SAVED = "saved.pt"
SAVED_TENSORS = "saved.safetensors"
PROGRAM_FILES = tuple(f"program-{number}.bin" for number in range(4))


def write_file(path: Path, size: int) -> None:
    """Random bytes in order, then fsync."""
    block = random.Random(23).randbytes(BLOCK_BYTES)
    with path.open("wb", buffering=0) as out:
        for _ in range(size // BLOCK_BYTES):
            out.write(block)
        os.fsync(out.fileno())


def write_and_fsync(root: Path, content: Content) -> None:
    write_file(root / WRITTEN, content.sizes.written_bytes)


def checkpoint(content: Content) -> dict[str, torch.Tensor]:
    """Tensors of the model's size, made without touching memory (untouched pages read as zeros)."""
    size = content.sizes.model_bytes // TENSORS // 4
    return {f"layer.{number}": torch.zeros(size) for number in range(TENSORS)}


def torch_save(root: Path, content: Content) -> None:
    torch.save(checkpoint(content), root / SAVED)


def safetensors_save(root: Path, content: Content) -> None:
    save_file(checkpoint(content), root / SAVED_TENSORS)


def write_from_programs(root: Path, content: Content) -> None:
    size = content.sizes.written_bytes // 2
    run_programs([partial(write_file, root / name, size) for name in PROGRAM_FILES])


def change_middle(root: Path, content: Content) -> None:
    with (root / MODEL).open("r+b", buffering=0) as file:
        file.seek(content.model_size // 2 + 12345)
        file.write(os.urandom(4096))
        os.fsync(file.fileno())


def append(root: Path, content: Content) -> None:
    with (root / MODEL).open("ab", buffering=0) as file:
        file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def create_small(root: Path, content: Content) -> None:
    directory = root / f"made-{os.getpid()}"
    directory.mkdir()
    body = os.urandom(content.sizes.small_bytes)
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as threads:
        paths = [directory / f"{number:04}.jpg" for number in range(content.sizes.small_files)]
        list(threads.map(lambda path: path.write_bytes(body), paths))


def unpack_tree(root: Path, content: Content) -> None:
    """What "git clone" and "tar x" do: one program makes directories and files in turn."""
    top = root / f"{UNPACKED}-{os.getpid()}"
    body = os.urandom(2000)
    for folder in range(content.sizes.tree_directories):
        (top / f"{folder:02}").mkdir(parents=True)
        for number in range(TREE_FILES):
            (top / f"{folder:02}" / f"{number:03}.py").write_bytes(body)


def make_tree(root: Path, content: Content) -> None:
    """The tree that is removed next, unless it is there."""
    if not (root / UNPACKED).exists():
        for folder in range(content.sizes.tree_directories):
            (root / UNPACKED / f"{folder:02}").mkdir(parents=True)
            for number in range(TREE_FILES):
                (root / UNPACKED / f"{folder:02}" / f"{number:03}.py").write_bytes(b"x")


def remove_tree(root: Path, content: Content) -> None:
    done = subprocess.run(["rm", "-r", str(root / UNPACKED)], capture_output=True, check=False)
    if done.returncode:
        raise WorkFailedError(done.stderr.decode()[-60:])


def rename_tree(root: Path, content: Content) -> None:
    """There or back, as the previous run has left it."""
    here, there = root / TREE, root / f"{TREE}-renamed"
    if here.exists():
        here.rename(there)
    else:
        there.rename(here)


WRITE_WORKS = (
    Work("write and fsync", write_and_fsync, writes=True, makes=(WRITTEN,)),
    Work("torch.save", torch_save, makes=(SAVED,)),
    Work("safetensors save_file", safetensors_save, makes=(SAVED_TENSORS,)),
    Work("4 programs write at once", write_from_programs, writes=True, makes=PROGRAM_FILES),
    Work("create small files, 16 writers", create_small),
    Work("make a tree of small files", unpack_tree),
    Work("rm -r a tree of small files", remove_tree, prepare=make_tree),
    Work("rename a directory", rename_tree),
    Work("change 4 KiB in the model", change_middle),
    Work("append 1 MiB to the model", append),
)
