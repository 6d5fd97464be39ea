"""How programs load models, as a program: ``python -m tests.support.loaders HOW DIRECTORY``.

Each reads its file of the DIRECTORY the way a well-known library does, ends with every
byte in memory of its own, and prints JSON: ``seconds`` from the open to the last byte, imports
left out, the CPU time of that (``cpu_seconds``), how long the machine's cores were idle meanwhile,
all together (``idle_seconds``), and a ``digest`` of what was loaded, which the same loader prints
for a copy elsewhere.
"""

import gc
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xxhash

from tests.support.libraries import LIBRARIES

MIB = 1024**2
SAFETENSORS, CHECKPOINT, ARRAYS, GGUF = "model.safetensors", "model.pt", "model.npz", "model.gguf"
MANY, LARGE = "many.safetensors", "large.safetensors"
SHARDS = tuple(f"shard-{number:05}-of-00008.safetensors" for number in range(1, 9))

Loaded = Mapping[str, Any]


@dataclass(frozen=True)
class Loader:
    """``load`` gives what was loaded, by name; ``needs`` are modules it imports."""

    load: Callable[[Path], Loaded]
    file: str
    needs: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = ()
    """What it is about."""

    @property
    def available(self) -> bool:
        """Whether everything it imports is installed."""
        return all(find_spec(name) is not None for name in self.needs)


def read_plainly(path: Path) -> Loaded:
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return {}


def load_file(path: Path, **options: str) -> Loaded:
    """Since safetensors 0.8 it touches each tensor's first page before anybody reads them."""
    tensors = import_module("safetensors.torch").load_file(path, **options)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def load_file_by_reading(path: Path) -> Loaded:
    return load_file(path, backend="pread")


def safe_open(path: Path, order: Callable[[list[str]], None] = list.sort) -> Loaded:
    """``get_tensor`` of each name."""
    with import_module("safetensors").safe_open(path, "pt") as file:
        names = list(file.keys())
        order(names)
        return {name: file.get_tensor(name).clone() for name in names}


def safe_open_in_order(path: Path) -> Loaded:
    return safe_open(path, lambda names: None)


def safe_open_shuffled(path: Path) -> Loaded:
    """As a state dict's order, which is not the file's."""
    return safe_open(path, random.Random(29).shuffle)


def numpy_tensors(path: Path) -> Loaded:
    with import_module("safetensors").safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict


def rank_of(rank: int, ranks: int) -> Callable[[Path], Loaded]:
    """The slices of one rank, as tensor parallelism reads them."""

    def load(path: Path) -> Loaded:
        with import_module("safetensors").safe_open(path, "pt") as file:
            sliced = {}
            for name in file.keys():  # noqa: SIM118 - no dict
                tensor = file.get_slice(name)
                rows = tensor.get_shape()[0]
                sliced[name] = tensor[rows * rank // ranks : rows * (rank + 1) // ranks].clone()
            return sliced

    return load


def ranks_at_once(ranks: int) -> Callable[[Path], Loaded]:
    def load(path: Path) -> Loaded:
        at_once([lambda rank=rank: rank_of(rank, ranks)(path) for rank in range(ranks)])  # type: ignore[misc]
        return {}

    return load


def shards_by_processes(directory: Path) -> Loaded:
    """Eight shards by four processes."""

    def share(first: int) -> None:
        for name in SHARDS[first::4]:
            load_file(directory / name)

    at_once([lambda first=first: share(first) for first in range(4)])  # type: ignore[misc]
    return {}


def torch_load(path: Path) -> Loaded:
    loaded: Loaded = import_module("torch").load(path, weights_only=True)
    return loaded


def torch_load_mapped(path: Path) -> Loaded:
    tensors = import_module("torch").load(path, weights_only=True, mmap=True)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def memory_map(path: Path) -> Loaded:
    return {"": np.array(np.memmap(path, np.uint8, "r"))}


def arrays(path: Path) -> Loaded:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def gguf_reader(path: Path) -> Loaded:
    reader = import_module("gguf").GGUFReader(path)
    return {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def eight_threads(path: Path) -> Loaded:
    """The whole file in pieces of 16 MiB: vLLM's and SGLang's prefetch."""
    size, piece = path.stat().st_size, 16 * MIB
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(8) as threads:
        reads = threads.map(
            lambda start: os.pread(file.fileno(), piece, start), range(0, size, piece)
        )
        return {str(number): np.frombuffer(data, np.uint8) for number, data in enumerate(reads)}


def one_after_the_other(path: Path) -> Loaded:
    """All of a file that is larger than the memory, as onto a device: each tensor is touched, then
    copied into the same buffer. Of each, the bytes that are not zero are kept.
    """
    tensors = import_module("safetensors.torch").load_file(path)
    loaded: dict[str, Any] = {}
    buffer = np.empty(max(tensor.numel() for tensor in tensors.values()), np.uint8)
    for number, name in enumerate(sorted(tensors)):
        mapped = tensors.pop(name).numpy().reshape(-1)
        held = buffer[: mapped.size]
        np.copyto(held, mapped)
        mark = _mark(number, held.size)
        loaded[name] = held[mark : mark + 8].copy()
    return loaded


def one_after_the_other_mapped(path: Path) -> Loaded:
    """The same accesses through a mapping that is only read: ``load_file`` maps for writing, which
    Linux refuses for a file that is larger than all of the machine's memory.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    whole = np.frombuffer(mapping, np.uint8)[8 + length :]
    spans = {name: header[name]["data_offsets"] for name in sorted(header)}
    touched = sum(int(whole[start]) for start, _ in spans.values())
    buffer = np.empty(max(end - start for start, end in spans.values()), np.uint8)
    loaded: dict[str, Any] = {"touched": np.uint64(touched)}
    for number, (name, (start, end)) in enumerate(spans.items()):
        held = buffer[: end - start]
        np.copyto(held, whole[start:end])
        mark = _mark(number, held.size)
        loaded[name] = held[mark : mark + 8].copy()
    return loaded


def _hundred(names: list[str]) -> list[str]:
    return random.Random(3).sample(sorted(names), 100)


def few_of_many(path: Path) -> Loaded:
    with import_module("safetensors").safe_open(path, "pt") as file:
        names = _hundred(file.keys())
        return {name: file.get_tensor(name).clone() for name in names}


def few_of_many_in_order(path: Path) -> Loaded:
    """As a rank of a pipeline, or of a mixture of experts."""
    with import_module("safetensors").safe_open(path, "pt") as file:
        names = sorted(_hundred(file.keys()))
        return {name: file.get_tensor(name).clone() for name in names}


def few_of_many_by_reading(path: Path) -> Loaded:
    """As loaders that read each tensor into a buffer of their own."""
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
        header = json.loads(os.pread(file.fileno(), length, 8))
        loaded = {}
        for name in _hundred(header):
            start, end = header[name]["data_offsets"]
            data = os.pread(file.fileno(), end - start, 8 + length + start)
            loaded[name] = np.frombuffer(data, np.uint8)
        return loaded


def three_of_many(path: Path) -> Loaded:
    """A loader that stops."""
    with import_module("safetensors").safe_open(path, "pt") as file:
        names = sorted(file.keys())[:3]
        return {name: file.get_tensor(name).clone() for name in names}


def three_slices(path: Path) -> Loaded:
    """One that reads the first rows of the first tensors and stops."""
    with import_module("safetensors").safe_open(path, "np") as file:
        names = sorted(file.keys())[:3]
        return {name: file.get_slice(name)[:1] for name in names}


def random_pages(path: Path) -> Loaded:
    choose, pages = random.Random(17), path.stat().st_size // 4096
    with path.open("rb", buffering=0) as file:
        return {
            str(number): np.frombuffer(
                os.pread(file.fileno(), 4096, choose.randrange(pages) * 4096), np.uint8
            )
            for number in range(100)
        }


def headers_only(directory: Path) -> Loaded:
    """As model hubs list files."""
    for path in sorted(directory.glob("shard-*")):
        with import_module("safetensors").safe_open(path, "np") as file:
            file.keys()
    return {}


def headers_by_reading(directory: Path) -> Loaded:
    """The same without a mapping."""
    for path in sorted(directory.glob("shard-*")):
        with path.open("rb") as file:
            json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {}


_TORCH = ("torch", "safetensors")

LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        "plain read": Loader(read_plainly, SAFETENSORS),
        "load_file": Loader(load_file, SAFETENSORS, _TORCH),
        "load_file, pread": Loader(load_file_by_reading, SAFETENSORS, _TORCH),
        "safe_open": Loader(safe_open_in_order, SAFETENSORS, _TORCH),
        "safe_open, shuffled": Loader(safe_open_shuffled, SAFETENSORS, _TORCH),
        "safe_open, numpy": Loader(numpy_tensors, SAFETENSORS, ("safetensors",)),
        "one rank of two": Loader(rank_of(1, 2), SAFETENSORS, _TORCH),
        "two ranks at once": Loader(ranks_at_once(2), SAFETENSORS, _TORCH),
        "four ranks at once": Loader(ranks_at_once(4), SAFETENSORS, _TORCH),
        "8 shards, 4 processes": Loader(shards_by_processes, ".", _TORCH),
        "many small tensors": Loader(load_file, MANY, _TORCH),
        "100 of many tensors": Loader(few_of_many, MANY, _TORCH),
        "100 of many, in order": Loader(few_of_many_in_order, MANY, _TORCH),
        "100 of many, pread": Loader(few_of_many_by_reading, MANY),
        "3 of many tensors": Loader(three_of_many, MANY, _TORCH),
        "3 slices": Loader(three_slices, SAFETENSORS, ("safetensors",)),
        "torch.load": Loader(torch_load, CHECKPOINT, ("torch",)),
        "torch.load, mapped": Loader(torch_load_mapped, CHECKPOINT, ("torch",)),
        "numpy memmap": Loader(memory_map, SAFETENSORS),
        "numpy npz": Loader(arrays, ARRAYS),
        "gguf": Loader(gguf_reader, GGUF, ("gguf",)),
        "8 threads of 16 MiB": Loader(eight_threads, SAFETENSORS),
        "larger than the memory": Loader(
            one_after_the_other, LARGE, _TORCH, ("--memory-limit", "512M")
        ),
        "larger than the machine": Loader(
            one_after_the_other_mapped, LARGE, mount_options=("--memory-limit", "512M")
        ),
        "100 random pages": Loader(random_pages, SAFETENSORS),
        "headers only": Loader(headers_only, ".", ("safetensors",)),
        "headers only, read": Loader(headers_by_reading, "."),
    }
)
"""By the name a table shows."""


def at_once(calls: list[Callable[[], object]]) -> None:
    """Each call in a forked process; imports are done once, before.

    Raises:
        RuntimeError: a process failed.
    """
    children = []
    for call in calls:
        child = os.fork()
        if child == 0:
            try:
                call()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        raise RuntimeError("a process failed")


def digest_of(loaded: Loaded) -> str:
    """The same for the same bytes under the same names."""
    digest = xxhash.xxh3_128()
    for name in sorted(loaded):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(loaded[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def make_model(directory: Path, layers: int, *, scale: int = MIB) -> None:
    """Files of ``layers`` layers of a language model, 124 times ``scale`` bytes each, and one of
    1,250 small tensors for each layer; torch's and gguf's files only where those are installed.
    """
    save_file = import_module("safetensors.numpy").save_file

    generator = np.random.default_rng(11)
    pool = generator.integers(0, 256, 160 * scale, np.uint8)
    tensors = dict(_layers(pool, layers, scale))
    save_file(tensors, directory / SAFETENSORS)
    for number, shard in enumerate(SHARDS):
        names = list(tensors)[number :: len(SHARDS)]
        save_file({name: tensors[name] for name in names}, directory / shard)
    each = scale // 40 * 4
    save_file(
        {
            f"t.{n:05}": pool[n * 64 : n * 64 + each].reshape(4, -1).copy()
            for n in range(1250 * layers)
        },
        directory / MANY,
    )
    np.savez(directory / ARRAYS, **tensors)
    if find_spec("torch"):
        torch = import_module("torch")
        copies = {name: torch.from_numpy(array) for name, array in tensors.items()}
        torch.save(copies, directory / CHECKPOINT)
    if find_spec("gguf"):
        writer = import_module("gguf").GGUFWriter(directory / GGUF, "llama")
        for name, array in tensors.items():
            writer.add_tensor(name, array.view(np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def make_many(path: Path, count: int, each_bytes: int) -> None:
    """A safetensors file of ``count`` tensors, each of zeros but for eight bytes somewhere, so that
    a sparse file holds it.
    """
    spans = {
        f"t.{n:05}": {
            "dtype": "U8",
            "shape": [4, each_bytes // 4],
            "data_offsets": [n * each_bytes, (n + 1) * each_bytes],
        }
        for n in range(count)
    }
    header = json.dumps(spans, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    base = 8 + len(header)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for number in range(count):
            file.seek(base + number * each_bytes + _mark(number, each_bytes))
            file.write((number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "little"))
        file.truncate(base + count * each_bytes)


def _mark(number: int, each_bytes: int) -> int:
    return number * 7919 % (each_bytes - 8)


def _layers(pool: Any, layers: int, scale: int) -> Iterator[tuple[str, Any]]:
    sizes = {"q": 16, "k": 4, "v": 4, "o": 16, "gate": 28, "up": 28, "down": 28}
    for layer in range(layers):
        for number, (name, size) in enumerate(sizes.items()):
            start = (layer * 7 + number) * 4099
            yield f"layers.{layer}.{name}", pool[start : start + size * scale].reshape(4, -1).copy()
        for name in ("norm1", "norm2", "bias"):
            yield f"layers.{layer}.{name}", pool[layer : layer + 8192].reshape(4, -1).copy()


def loader_named(how: str) -> Loader:
    """One of this file, or of the libraries, whose files lie in a directory of their own."""
    if how in LOADERS:
        return LOADERS[how]
    library = LIBRARIES[how]
    return Loader(library.load, library.directory(how), library.needs)


def measured(how: str, directory: Path) -> str:
    """Load; JSON of what came."""
    loader = loader_named(how)
    for name in loader.needs:
        import_module(name)
    if loader.needs == _TORCH:
        import_module("safetensors.torch")
    if "torch" in loader.needs:
        # Its threads do not survive a fork, and the ranks of a node have a core each.
        import_module("torch").set_num_threads(1)
    began, cpu_began, idle_began = time.perf_counter(), _cpu_seconds(), _idle_seconds()
    loaded = loader.load(directory / loader.file)
    spent = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": _cpu_seconds() - cpu_began,
        "idle_seconds": _idle_seconds() - idle_began,
    }
    return json.dumps(spent | {"digest": digest_of(loaded)})


def _cpu_seconds() -> float:
    """Of this process, its threads and the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _idle_seconds() -> float:
    """How long the cores of this machine had nothing to do, all together."""
    idle, waiting = Path("/proc/stat").read_text().split(maxsplit=6)[4:6]
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Load once, or, without arguments, for each line of JSON ``[HOW, DIRECTORY]`` on stdin."""
    if sys.argv[1:]:
        how, directory = sys.argv[1:]
        sys.stdout.write(measured(how, Path(directory)) + "\n")
        return
    for line in sys.stdin:
        how, directory = json.loads(line)
        answer = measured(how, Path(directory))
        gc.collect()  # no mapping may keep a mount busy
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
