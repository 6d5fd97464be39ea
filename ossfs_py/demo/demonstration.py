"""``ossfs-py demo``: load a real model from a real object store through a real mount.

Starts the embedded S3 server, puts a safetensors model, a torch checkpoint and a tree of small
files into a bucket, mounts it over each data path in turn, loads everything with plain
safetensors and torch code, and compares every tensor with the original. Where torch cannot be
imported there is no checkpoint: torch is as large as everything else several times over.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ossfs_py.demo.server import SeaweedServer
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.interrupts import unwinding

if TYPE_CHECKING:
    import numpy as np

    Tensor = np.ndarray[Any, Any]
    Tensors = Mapping[str, Tensor]

BUCKET = "demo-models"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.pt"
SMALL_FILES = "small"
SMALL_DIRECTORIES = 10
FILES_PER_DIRECTORY = 20
SMALL_FILE_BYTES = 4096
DEFAULT_MODEL_BYTES = 256 * 1024**2
DATA_PATHS = ("temp", "cache", "direct")
MOUNT_TIMEOUT_SECONDS = 30.0
UNMOUNT_TIMEOUT_SECONDS = 60.0
WITHOUT_TORCH = "torch.load was left out: make demo TORCH=1, or pip install torch, shows it."


@dataclass(frozen=True, slots=True)
class LoadTime:
    """One work over one data path."""

    work: str
    data_path: str
    size_bytes: int
    seconds: float

    @property
    def megabytes_per_second(self) -> float:
        """Rate in 10^6 bytes per second."""
        return self.size_bytes / 1e6 / self.seconds


@dataclass(frozen=True, slots=True)
class Originals:
    """The files that were put into the bucket, and must come back the same."""

    model: "Tensors"
    checkpoint: "Tensors"
    """Empty without torch."""
    small: Mapping[str, bytes]


def run_demo(
    *,
    data_paths: Sequence[str] = DATA_PATHS,
    model_bytes: int = DEFAULT_MODEL_BYTES,
    console: Console | None = None,
) -> int:
    """Run the demonstration, print its table and return 0.

    Interrupted by SIGINT or SIGTERM, it cleans up like at the end.

    Raises:
        EnvironmentProblemError: something is missing, or came back wrong; one sentence.
    """
    out = console or Console()
    _require_libraries()
    torch = _torch()
    with (
        unwinding(signal.SIGTERM),
        SeaweedServer() as server,
        # Beside the server's data, so that even SIGKILL leaves nothing behind.
        tempfile.TemporaryDirectory(prefix="demo-", dir=server.directory) as scratch,
    ):
        out.print(f"An S3 server runs at {server.endpoint}; making a model for it …")
        originals = _fill(server, Path(scratch) / "originals", model_bytes, torch)
        measurements: list[LoadTime] = []
        for data_path in data_paths:
            out.print(f"Mounting s3://{BUCKET} with --data-path {data_path} …")
            work = Path(scratch) / data_path
            with _mounted(server, work, data_path) as mountpoint:
                measurements += _load_everything(mountpoint, data_path, originals)
        out.print(_table(measurements, data_paths))
        out.print("Every tensor and every file equals its original, over every data path.")
        if torch is None:
            out.print(WITHOUT_TORCH)
    return 0


def _require_libraries() -> None:
    missing = [name for name in ("safetensors", "numpy") if find_spec(name) is None]
    if missing:
        raise EnvironmentProblemError(
            f"The demonstration needs {' and '.join(missing)}: pip install 'ossfs-py[demo]'."
        )


def _torch() -> ModuleType | None:
    """The library, where it can be imported."""
    try:
        return import_module("torch")
    except ImportError:
        return None


# -- the content of the bucket ---------------------------------------------------------------


def _fill(
    server: SeaweedServer, directory: Path, model_bytes: int, torch: ModuleType | None
) -> Originals:
    """Make the originals and store them as any other S3 client would, not through a mount."""
    import numpy as np
    from safetensors.numpy import save_file

    directory.mkdir()
    random = np.random.default_rng(20_240_229)
    dtypes = (np.float16, np.float32, np.float64, np.int64, np.uint8)

    def tensors(prefix: str, count: int, total_bytes: int) -> "dict[str, Tensor]":
        made = {}
        for number in range(count):
            # Raw random bytes under every type: even a NaN's payload must survive the way.
            shape = (64, max(1, total_bytes // count // 64 // 8) * 8)
            raw = random.integers(0, 256, shape, dtype=np.uint8)
            made[f"{prefix}.{number}"] = raw.view(dtypes[number % len(dtypes)])
        return made

    server.make_bucket(BUCKET)
    model = tensors("layers", 40, model_bytes)
    save_file(model, directory / MODEL)
    server.put_file(BUCKET, MODEL, directory / MODEL)
    (directory / MODEL).unlink()
    checkpoint = {}
    if torch is not None:
        checkpoint = tensors("optimizer", 10, model_bytes // 4)
        saved = {name: torch.from_numpy(tensor) for name, tensor in checkpoint.items()}
        torch.save(saved, directory / CHECKPOINT)
        server.put_file(BUCKET, CHECKPOINT, directory / CHECKPOINT)
        (directory / CHECKPOINT).unlink()
    small = {
        f"{SMALL_FILES}/{folder:02}/{number:02}.txt": f"{folder}/{number} ".encode() * 1024
        for folder in range(SMALL_DIRECTORIES)
        for number in range(FILES_PER_DIRECTORY)
    }
    small = {name: content[:SMALL_FILE_BYTES] for name, content in small.items()}

    single = directory / "small"
    for name, content in small.items():
        single.write_bytes(content)
        server.put_file(BUCKET, name, single)
    return Originals(model, checkpoint, small)


# -- mounting --------------------------------------------------------------------------------


@contextlib.contextmanager
def _mounted(server: SeaweedServer, work: Path, data_path: str) -> Iterator[Path]:
    """The bucket at a directory, through the command line a person would use."""
    mountpoint, log = work / "mnt", work / "daemon.log"
    mountpoint.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "ossfs_py", "mount", BUCKET, str(mountpoint), "--foreground"),
        *("--endpoint", server.endpoint, "--data-path", data_path),
    ]
    for option in ("temp-dir", "cache-dir", "state-dir"):
        (work / option).mkdir(mode=0o700)
        if option != "cache-dir" or data_path == "cache":
            command += [f"--{option}", str(work / option)]
    with log.open("wb") as errors:
        daemon = subprocess.Popen(
            # Should this process be killed, the kernel tells the daemon, which unmounts and ends.
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=server.child_environment(),
            # A Ctrl-C in the terminal is ours to handle: first unmount, then stop the server.
            start_new_session=True,
        )
    try:
        _wait_until_mounted(mountpoint, daemon, log)
        yield mountpoint
    finally:
        _end(mountpoint, daemon)
    if daemon.returncode:
        raise EnvironmentProblemError(f"The mount ended badly: {_last_line(log)}")


def _wait_until_mounted(mountpoint: Path, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + MOUNT_TIMEOUT_SECONDS
    while not mountpoint.is_mount():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise EnvironmentProblemError(f"The bucket was not mounted: {_last_line(log)}")
        time.sleep(0.02)


def _end(mountpoint: Path, daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(UNMOUNT_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    # Fails when the daemon has unmounted, as it should have; detaches a dead mount otherwise.
    subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False, capture_output=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "the daemon said nothing"


# -- loading, with plain library code --------------------------------------------------------


def _load_everything(mountpoint: Path, data_path: str, originals: Originals) -> list[LoadTime]:
    from safetensors import safe_open

    model, checkpoint = mountpoint / MODEL, mountpoint / CHECKPOINT

    def open_model() -> "dict[str, Tensor]":
        with safe_open(model, framework="numpy") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118

    def load_checkpoint(*, mapped: bool) -> "dict[str, Tensor]":
        import torch

        loaded = torch.load(checkpoint, weights_only=True, mmap=mapped)
        if mapped:  # clone() touches every byte, which a mapped tensor does not
            loaded = {name: tensor.clone() for name, tensor in loaded.items()}
        return {name: tensor.numpy() for name, tensor in loaded.items()}

    def read_small() -> dict[str, bytes]:
        root = mountpoint / SMALL_FILES
        return {
            str(path.relative_to(mountpoint)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    loads: list[tuple[str, Callable[[], Tensors], Tensors]] = [
        ("safetensors, every tensor", open_model, originals.model),
        ("safetensors again, warm", open_model, originals.model),
    ]
    if originals.checkpoint:
        loads += [
            ("torch.load", partial(load_checkpoint, mapped=False), originals.checkpoint),
            ("torch.load, mmap, warm", partial(load_checkpoint, mapped=True), originals.checkpoint),
        ]
    measurements = []
    for work, load, expected in loads:
        began = time.perf_counter()
        loaded = load()
        seconds = time.perf_counter() - began
        _check_tensors(work, data_path, loaded, expected)
        size = sum(tensor.nbytes for tensor in expected.values())
        measurements.append(LoadTime(work, data_path, size, seconds))
    began = time.perf_counter()
    files = read_small()
    seconds = time.perf_counter() - began
    if files != originals.small:
        raise EnvironmentProblemError(f"The small files differ over data path {data_path}.")
    size = sum(len(content) for content in files.values())
    work = f"{len(files)} files of {SMALL_FILE_BYTES // 1024} KiB"
    return [*measurements, LoadTime(work, data_path, size, seconds)]


def _check_tensors(work: str, data_path: str, loaded: "Tensors", expected: "Tensors") -> None:
    import numpy as np

    if loaded.keys() != expected.keys():
        raise EnvironmentProblemError(f"{work}: tensors are missing over data path {data_path}.")
    for name, tensor in expected.items():
        found = loaded[name]
        same = (
            found.dtype == tensor.dtype
            and found.shape == tensor.shape
            and np.array_equal(found.view(np.uint8), tensor.view(np.uint8))
        )
        if not same:
            raise EnvironmentProblemError(
                f"{work}: tensor {name} differs from the original over data path {data_path}."
            )


def _table(measurements: Sequence[LoadTime], data_paths: Sequence[str]) -> Table:
    table = Table(title="Loaded through the mount, compared with the originals")
    table.add_column("work")
    table.add_column("MB", justify="right")
    for data_path in data_paths:
        table.add_column(f"{data_path}\ns", justify="right")
        table.add_column("\nMB/s", justify="right")
    by_work: dict[str, dict[str, LoadTime]] = {}
    for one in measurements:
        by_work.setdefault(one.work, {})[one.data_path] = one
    for work, row in by_work.items():
        size = next(iter(row.values())).size_bytes / 1e6
        cells = [
            cell
            for data_path in data_paths
            for cell in (
                f"{row[data_path].seconds:.2f}",
                f"{row[data_path].megabytes_per_second:,.0f}",
            )
        ]
        table.add_row(work, f"{size:,.0f}" if size >= 10 else f"{size:.1f}", *cells)
    return table
