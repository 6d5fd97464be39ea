"""The programs people use, unmodified, on a real mount over each data path.

What they wrote is checked at the store, through a client that shares no code with the package.
"""

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from tests.support.workplace import Workplace

MIB = 1024**2


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A local tree: nested directories, an empty file, an executable, names in any script."""
    root = tmp_path / "tree"
    (root / "deep/er/still").mkdir(parents=True)
    (root / "empty").touch()
    (root / "text.txt").write_text("text\n" * 1000)
    (root / "deep/données 数据.bin").write_bytes(os.urandom(300_000))
    (root / "deep/er/still/big.bin").write_bytes(os.urandom(12 * MIB))
    (root / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (root / "run.sh").chmod(0o755)
    return root


# -- file utilities ------------------------------------------------------------------------


def test_cp_copies_a_tree_in_and_out(place: Workplace, tree: Path) -> None:
    place.run("cp", "-r", tree, place.path / "copy")
    place.assert_stored_like(tree, "copy/")
    place.run("cp", "-r", place.path / "copy", place.local / "back")
    place.run("diff", "-r", tree, place.local / "back")


def test_mv_renames_files_and_directories(place: Workplace, tree: Path) -> None:
    place.run("cp", "-r", tree, "old")
    place.run("mv", "old", "new")
    place.run("mv", "new/text.txt", "new/deep/renamed.txt")
    place.run("mv", tree / "empty", "new/moved-in")
    place.run("mv", "new/run.sh", place.local / "moved-out")
    shutil.move(tree / "text.txt", tree / "deep/renamed.txt")
    (tree / "moved-in").touch()
    (tree / "empty").touch()
    (tree / "run.sh").unlink()
    place.assert_stored_like(tree, "new/")
    assert not (place.path / "old").exists()
    assert (place.local / "moved-out").read_text().endswith("echo ran\n")


def test_mv_over_an_existing_file_replaces_it(place: Workplace) -> None:
    (place.path / "target").write_bytes(b"old")
    (place.path / "source").write_bytes(b"new")
    place.run("mv", "source", "target")
    assert place.stored_names() == {"target"}
    assert place.stored("target") == (place.path / "target").read_bytes() == b"new"


def test_ls_and_find_show_what_is_there(place: Workplace, tree: Path) -> None:
    place.run("cp", "-r", tree, "copy")
    listed = place.run("ls", "-lR", "copy")
    assert "12582912" in listed
    assert "données 数据.bin" in listed
    found = place.run("find", "copy", "-type", "f", "-size", "+1M").split("\n")
    assert found == ["copy/deep/er/still/big.bin", ""]
    names = place.run("find", "copy", "-mindepth", "1", "-printf", "%P\n").splitlines()
    assert sorted(names) == sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))


def test_rm_removes_a_tree(place: Workplace, tree: Path) -> None:
    place.run("cp", "-r", tree, "copy")
    place.run("rm", "-r", "copy")
    assert place.stored_names() == set()
    assert list(place.path.iterdir()) == []


def test_tar_packs_and_unpacks_on_the_mount(place: Workplace, tree: Path) -> None:
    place.run("tar", "-cf", "archive.tar", "-C", tree, ".")
    place.run("mkdir", "out")
    place.run("tar", "-xf", "archive.tar", "-C", "out")
    place.assert_stored_like(tree, "out/")
    place.run("tar", "-df", "archive.tar", "-C", "out")
    assert os.access(place.path / "out/run.sh", os.X_OK)


def test_dd_writes_at_any_offset(place: Workplace) -> None:
    content = bytearray(os.urandom(20 * MIB))
    source, patch = place.local / "source", place.local / "patch"
    source.write_bytes(content)
    patch.write_bytes(os.urandom(4096))
    place.run("dd", f"if={source}", "of=file", "bs=1M", "status=none")
    place.run("dd", f"if={patch}", "of=file", "bs=4k", "seek=1500", "conv=notrunc", "status=none")
    content[1500 * 4096 : 1501 * 4096] = patch.read_bytes()
    assert place.stored("file") == bytes(content)
    place.run("dd", "if=file", f"of={place.local / 'part'}", "bs=1M", "skip=5", "status=none")
    assert (place.local / "part").read_bytes() == bytes(content[5 * MIB :])


def test_dd_leaves_a_hole_that_reads_as_zeros(place: Workplace) -> None:
    place.run("dd", "if=/dev/zero", "of=sparse", "bs=1", "count=1", "seek=9000000", "status=none")
    assert place.stored("sparse") == bytes(9_000_001)


def test_cat_and_the_shell_append_and_truncate(place: Workplace) -> None:
    place.run("sh", "-c", "echo one > log; echo two >> log; cat log log > both; echo new > log")
    assert place.stored("both") == b"one\ntwo\none\ntwo\n"
    assert place.stored("log") == b"new\n"
    assert place.run("cat", "log", "both") == "new\none\ntwo\none\ntwo\n"


def test_truncate_shortens_and_extends(place: Workplace) -> None:
    (place.path / "file").write_bytes(b"x" * 100_000)
    place.run("truncate", "-s", "10", "file")
    assert place.stored("file") == b"x" * 10
    place.run("truncate", "-s", "20", "file")
    assert place.stored("file") == b"x" * 10 + bytes(10)


def test_sha256sum_checks_what_cp_wrote(place: Workplace, tree: Path) -> None:
    big = tree / "deep/er/still/big.bin"
    place.run("cp", big, "big.bin")
    (place.path / "SUMS").write_text(f"{hashlib.sha256(big.read_bytes()).hexdigest()}  big.bin\n")
    assert place.run("sha256sum", "-c", "SUMS") == "big.bin: OK\n"


def test_rsync_mirrors_and_then_finds_nothing_to_do(place: Workplace, tree: Path) -> None:
    place.run("rsync", "-rlt", f"{tree}/", "mirror/")
    place.assert_stored_like(tree, "mirror/")
    again = place.run("rsync", "-rlt", "--itemize-changes", f"{tree}/", "mirror/")
    assert [line for line in again.splitlines() if line.startswith((">f", "<f"))] == []


# -- git and sqlite ------------------------------------------------------------------------


def test_git_clones_commits_and_checks_clean(place: Workplace, tree: Path) -> None:
    git = (
        *("git", "-c", "user.name=T", "-c", "user.email=t@example.org"),
        *("-c", "safe.directory=*", "-c", "init.defaultBranch=main"),
    )
    place.run(*git, "-C", tree, "init", "-q")
    place.run(*git, "-C", tree, "add", ".")
    place.run(*git, "-C", tree, "commit", "-q", "-m", "first")
    place.run(*git, "clone", "-q", "--no-hardlinks", tree, "clone")
    clone = place.path / "clone"
    (clone / "text.txt").write_text("changed\n")
    place.run(*git, "-C", clone, "commit", "-q", "-a", "-m", "second")
    place.run(*git, "-C", clone, "fsck", "--strict")
    assert place.run(*git, "-C", clone, "status", "--porcelain") == ""
    place.run(*git, "clone", "-q", "--no-hardlinks", clone, place.local / "back")
    assert (place.local / "back/text.txt").read_text() == "changed\n"


def test_sqlite_keeps_a_database_through_transactions(place: Workplace) -> None:
    file = place.path / "data.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute("create table t (id integer primary key, payload blob)")
        with database:
            rows = ((number, os.urandom(500)) for number in range(2000))
            database.executemany("insert into t values (?, ?)", rows)
        with database:
            database.execute("delete from t where id % 3 = 0")
        with database:
            database.execute("update t set payload = zeroblob(100) where id % 3 = 1")
    assert place.run("sqlite3", file, "pragma integrity_check; select count(*) from t") == (
        "ok\n1333\n"
    )
    copy = place.local / "copy.sqlite"
    copy.write_bytes(place.stored("data.sqlite"))
    assert place.run("sqlite3", copy, "pragma integrity_check") == "ok\n"


# -- python's own library ------------------------------------------------------------------


def test_shutil_copies_and_removes_trees(place: Workplace, tree: Path) -> None:
    shutil.copytree(tree, place.path / "copy")
    place.assert_stored_like(tree, "copy/")
    shutil.rmtree(place.path / "copy/deep")
    shutil.rmtree(tree / "deep")
    place.assert_stored_like(tree, "copy/")


def test_tempfile_works_and_leaves_nothing(place: Workplace) -> None:
    with tempfile.TemporaryFile(dir=place.path) as unnamed:
        unnamed.write(b"x" * 100_000)
        unnamed.seek(50_000)
        assert len(unnamed.read()) == 50_000
    with (
        tempfile.TemporaryDirectory(dir=place.path) as directory,
        tempfile.NamedTemporaryFile(dir=directory) as named,
    ):
        named.write(b"content")
        named.flush()
        assert Path(named.name).read_bytes() == b"content"
    assert place.stored_names() == set()
    assert list(place.path.iterdir()) == []


def test_an_atomic_save_replaces_the_file(place: Workplace) -> None:
    target = place.path / "config.json"
    for content in (b"first", b"second"):
        handle, name = tempfile.mkstemp(dir=place.path)
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(target)
    assert place.stored("config.json") == b"second"
    assert place.stored_names() == {"config.json"}


def test_zipfile_writes_appends_and_reads(place: Workplace) -> None:
    content = {"a.txt": b"text" * 1000, "dir/b.bin": os.urandom(2 * MIB)}
    archive = place.path / "archive.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in content.items():
            out.writestr(name, data)
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("later", b"appended")
    with zipfile.ZipFile(archive) as back:
        assert back.testzip() is None
        assert {name: back.read(name) for name in back.namelist()} == {
            **content,
            "later": b"appended",
        }
    assert place.stored("archive.zip") == archive.read_bytes()


# -- models --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """About 40 MB in several types, in more than one upload part."""
    random = np.random.default_rng(5)
    return {
        "embedding": random.integers(0, 2**16, (2048, 1024), dtype=np.uint16),
        "weight": random.standard_normal((4096, 2048), dtype=np.float32),
        "half": random.standard_normal((512, 512), dtype=np.float32).astype(np.float16),
        "ids": np.arange(100_000),
        "scalar": np.array(3.5, np.float32),
    }


@pytest.fixture(scope="module")
def tensors(torch: ModuleType, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same as torch has it, with a type that numpy does not know."""
    made = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return made | {"embedding": made["embedding"].view(torch.bfloat16)}


def assert_same(torch: ModuleType, loaded: dict[str, Any], expected: dict[str, Any]) -> None:
    """Of torch; bytes are compared, as random ones may be no numbers."""
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert loaded[name].shape == tensor.shape, name
        one, other = (each.reshape(-1).view(torch.uint8) for each in (loaded[name], tensor))
        assert torch.equal(one, other), name


def assert_same_arrays(loaded: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        assert loaded[name].dtype == array.dtype, name
        assert np.array_equal(loaded[name], array), name


def test_safetensors_saves_and_loads_arrays(
    place: Workplace, arrays: dict[str, np.ndarray]
) -> None:
    from safetensors.numpy import load_file, save_file

    path, local = place.path / "model.safetensors", place.local / "model.safetensors"
    save_file(arrays, path)
    save_file(arrays, local)
    assert place.stored("model.safetensors") == local.read_bytes()
    assert_same_arrays(load_file(path), arrays)
    with safe_open(path, framework="numpy") as opened:
        assert_same_arrays({name: opened.get_tensor(name) for name in opened.keys()}, arrays)  # noqa: SIM118
        part = opened.get_slice("weight")[100:200, ::2]
    assert np.array_equal(part, arrays["weight"][100:200, ::2])


def test_safetensors_saves_and_loads(
    place: Workplace, torch: ModuleType, tensors: dict[str, Any]
) -> None:
    from safetensors.torch import load_file, save_file

    path, local = place.path / "model.safetensors", place.local / "model.safetensors"
    save_file(tensors, path)
    save_file(tensors, local)
    assert place.stored("model.safetensors") == local.read_bytes()
    assert_same(torch, load_file(path), tensors)
    with safe_open(path, framework="pt") as opened:
        assert_same(torch, {name: opened.get_tensor(name) for name in opened.keys()}, tensors)  # noqa: SIM118
        part = opened.get_slice("weight")[100:200, ::2]
    assert torch.equal(part, tensors["weight"][100:200, ::2])


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mmap"])
def test_torch_saves_and_loads(
    place: Workplace, torch: ModuleType, tensors: dict[str, Any], mapped: bool
) -> None:
    path = place.path / "checkpoint.pt"
    torch.save(tensors, path)
    assert_same(torch, torch.load(path, weights_only=True, mmap=mapped), tensors)
    witness = place.local / "witness.pt"
    witness.write_bytes(place.stored("checkpoint.pt"))
    assert_same(torch, torch.load(witness, weights_only=True), tensors)


def test_torch_overwrites_a_checkpoint_in_place(place: Workplace, torch: ModuleType) -> None:
    path = place.path / "last.pt"
    for step in range(3):
        torch.save({"step": step, "state": torch.full((1000, 1000), float(step))}, path)
        loaded = torch.load(path, weights_only=True)
        assert loaded["step"] == step
        assert loaded["state"].unique().tolist() == [float(step)]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.filterwarnings("ignore:Detected an existing checkpoint")
def test_torch_saves_and_loads_a_distributed_checkpoint(
    place: Workplace, torch: ModuleType
) -> None:
    """``torch.distributed.checkpoint``: a file for each rank, and metadata that is renamed last."""
    from torch.distributed import checkpoint

    directory = place.path / "checkpoint"
    where = str(directory)
    saved = {f"w{number}": torch.rand(number + 1, 100_000) for number in range(12)}
    checkpoint.save(saved, checkpoint_id=where, no_dist=True)
    names = {".metadata", "__0_0.distcp"}
    assert place.stored_names() == {f"checkpoint/{name}" for name in names}
    loaded = {name: torch.empty_like(tensor) for name, tensor in saved.items()}
    checkpoint.load(loaded, checkpoint_id=where, no_dist=True)
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor)
    checkpoint.save(loaded, checkpoint_id=where, no_dist=True)  # over the one before
    assert {path.name for path in directory.iterdir()} == names


def test_numpy_maps_an_array_and_writes_through_it(place: Workplace) -> None:
    path = place.path / "array.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(1000, 500))
    array[:] = np.arange(500_000, dtype=np.float32).reshape(1000, 500)
    array[7, 7] = -1
    array.flush()
    del array
    place.run("sync", "-f", path)
    loaded = np.load(path, mmap_mode="r")
    assert loaded[7, 7] == -1
    assert loaded[999, 499] == 499_999
    assert place.stored("array.npy") == path.read_bytes()


def test_a_hugging_face_cache_tree_works(place: Workplace, arrays: dict[str, np.ndarray]) -> None:
    """Blobs by checksum, snapshots of relative symlinks, refs, and lock files."""
    from safetensors.numpy import load_file, save_file

    repo = place.path / "hub/models--org--name"
    for directory in ("blobs", "refs", "snapshots/abc123"):
        (repo / directory).mkdir(parents=True)
    with (repo / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        partial = repo / "blobs/feed.incomplete"
        save_file(arrays, partial)
        partial.rename(repo / "blobs/feed")
        (repo / "snapshots/abc123/model.safetensors").symlink_to("../../blobs/feed")
        (repo / "refs/main").write_text("abc123")
        probe = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        blocked = subprocess.run(
            [sys.executable, "-c", probe, repo / ".lock"], check=False, capture_output=True
        )
        assert b"BlockingIOError" in blocked.stderr
    revision = (repo / "refs/main").read_text()
    link = repo / "snapshots" / revision / "model.safetensors"
    assert str(link.readlink()) == "../../blobs/feed"
    assert link.stat().st_size == (repo / "blobs/feed").stat().st_size
    assert_same_arrays(load_file(link), arrays)
    assert "->" in place.run("ls", "-l", link.parent)


def test_posix_locks_exclude_another_process(place: Workplace) -> None:
    file = place.path / "locked"
    file.touch()
    with file.open("r+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX, 10, 0)
        probe = (
            "import fcntl, sys; f = open(sys.argv[1], 'r+');"
            "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, int(sys.argv[2]))"
        )
        for start, free in ((5, False), (10, True)):
            done = subprocess.run(
                [sys.executable, "-c", probe, file, str(start)], check=False, capture_output=True
            )
            assert (done.returncode == 0) is free, done.stderr
