"""The works of ``ossfs-py bench`` on a local directory, and what it tells of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ossfs_py.bench.observed import Spending
from ossfs_py.bench.pages import resident_bytes
from ossfs_py.bench.run import (
    LET_GO_SECONDS,
    Bench,
    Measurement,
    existing_material,
    own_material,
    scratch_directory,
)
from ossfs_py.bench.works import (
    WORKS,
    Material,
    Meter,
    StoppedError,
    Work,
    WorkFailedError,
    read_in_parallel,
    read_interleaved,
    read_randomly,
    read_sequentially,
    touch_mapped,
    write,
)
from ossfs_py.cli.bench_report import Report
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mounttable import MountEntry
from ossfs_py.reading import readers
from tests.support.descriptors import open_below

MIB = 1024**2
ODD_BYTES = 9 * MIB + 4321
"""No multiple of anything the works step by."""
BY_NAME = {work.name: work for work in WORKS}


class Bar:
    """Remembers what was begun, and how far it got."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.totals: dict[str, int | None] = {}

    def begin(self, title: str, total: int | None) -> Callable[[int], None]:
        self.done[title], self.totals[title] = 0, total

        def advance(amount: int) -> None:
            self.done[title] += amount

        return advance


class SpendingDaemon:
    """Has spent a little more each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.forgotten: list[str] = []

    def spending(self) -> Spending:
        self.asked += 1
        return Spending(0.5 * self.asked, 1000 * self.asked, 100 * self.asked, self.asked)

    def forget_names(self, directory: str) -> None:
        self.forgotten.append(directory)


def ignore(_amount: int) -> None:
    """Nobody looks."""


def bench(material: Material, *names: str) -> tuple[list[Measurement], Bar, SpendingDaemon]:
    bar, daemon = Bar(), SpendingDaemon()
    works = [BY_NAME[name] for name in names] or list(WORKS)
    measured = list(Bench(material, bar, daemon, let_go_seconds=0).run(works))
    return measured, bar, daemon


def test_every_work_does_all_that_it_announces(tmp_path: Path) -> None:
    measured, bar, daemon = bench(own_material(tmp_path, ODD_BYTES))
    assert [one.work for one in measured] == list(WORKS)
    for one in measured:
        assert bar.done[one.work.title] == bar.totals[one.work.title] != 0
        assert one.seconds > 0
        assert one.spent == Spending(0.5, 1000, 100, 1)
    by_name = {one.work.name: one for one in measured}
    for name in ("write", "sequential", "parallel", "interleaved", "mmap"):
        assert (by_name[name].bytes, by_name[name].operations) == (ODD_BYTES, None)
    assert (by_name["random"].bytes, by_name["random"].operations) == (100 * 4096, 100)
    assert (by_name["list"].bytes, by_name["list"].operations) == (0, 100)
    assert (by_name["small"].bytes, by_name["small"].operations) == (100 * 65536, 100)
    assert daemon.forgotten == ["small", "small"]


def test_what_a_work_needs_is_made_and_not_told(tmp_path: Path) -> None:
    measured, bar, _ = bench(own_material(tmp_path, MIB), "small")
    assert [one.work.name for one in measured] == ["small"]
    assert set(bar.done) == {"create small files", "read them"}
    assert not (tmp_path / "file.dat").exists()


def test_a_file_that_is_there_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"x" * 5000)
    names = ("sequential", "parallel", "interleaved", "random", "mmap")
    measured, _, _ = bench(existing_material(path), *names)
    assert [one.work.name for one in measured] == list(names)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read: No such file or directory"), (b"", "is empty")]
)
def test_a_file_without_bytes_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnvironmentProblemError, match=why):
        existing_material(path)


@pytest.mark.parametrize(
    "work", [read_sequentially, read_in_parallel, read_interleaved, read_randomly]
)
def test_a_file_that_shrinks_meanwhile_is_told(
    tmp_path: Path, work: Callable[[Material, Meter], float | None]
) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(MIB))
    material = Material(path, 4 * MIB, tmp_path, 0, 0)
    with pytest.raises(WorkFailedError, match="shorter"):
        work(material, Meter(ignore))


def test_a_program_that_dies_of_its_mapping_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.touch()
    with pytest.raises(WorkFailedError, match="ended with code 1"):
        touch_mapped(Material(path, MIB, tmp_path, 0, 0), Meter(ignore))


def test_an_interrupted_write_leaves_no_file_to_be_uploaded(tmp_path: Path) -> None:
    def interrupt(_amount: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(own_material(tmp_path, 16 * MIB), Meter(interrupt))
    assert list(tmp_path.iterdir()) == []
    assert open_below(tmp_path) == []


def test_a_stopped_work_ends_with_its_next_step(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(MIB))
    meter = Meter(ignore)
    meter.stop()
    with pytest.raises(StoppedError):
        read_in_parallel(existing_material(path), meter)
    assert meter.done == 0


def test_a_file_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.dat").write_bytes(b"precious")
    with pytest.raises(EnvironmentProblemError, match="write and fsync failed: File exists"):
        bench(own_material(tmp_path, MIB), "write")
    assert (tmp_path / "file.dat").read_bytes() == b"precious"


@pytest.mark.parametrize("keep", [False, True])
def test_the_directory_goes_unless_it_is_to_be_kept(tmp_path: Path, keep: bool) -> None:
    with scratch_directory(tmp_path, keep=keep) as path:
        (path / "file").touch()
    assert path.exists() == keep


@pytest.mark.parametrize("cause", [KeyboardInterrupt, SystemExit, EnvironmentProblemError])
def test_the_directory_goes_when_something_goes_wrong(
    tmp_path: Path, cause: type[BaseException]
) -> None:
    with pytest.raises(cause), scratch_directory(tmp_path, keep=True):
        raise cause
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_room_for_a_directory_is_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    sentence = f"no directory can be made in {missing}: No such file or directory"
    with (
        pytest.raises(EnvironmentProblemError, match=sentence),
        scratch_directory(missing, keep=False),
    ):
        pass


def test_pages_in_memory_are_counted(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(10 * MIB)
        assert resident_bytes(file.fileno()) == 0
        file.write(bytes(2 * MIB))
        file.flush()
        assert resident_bytes(file.fileno()) == 2 * MIB


def test_the_mount_has_let_go_of_a_file_before_it_is_read_again() -> None:
    assert LET_GO_SECONDS > readers._LINGER_SECONDS + readers._TICK_SECONDS


def report(measured: list[Measurement], data_path: str | None = "direct") -> Report:
    entry = MountEntry(Path("/mnt/m"), "fuse.ossfs-py", "models", "user_id=0")
    material = Material(Path("/mnt/m/d/file"), 100 * MIB, Path("/mnt/m/d/small"), 100, 65536)
    return Report(Path("/mnt/m/d"), entry, data_path, material, measured, None)


def measurement(work: Work, **changes: object) -> Measurement:
    values = {"seconds": 2.0, "bytes": 100_000_000, "operations": None, "stayed_bytes": 0} | {
        "spent": Spending(0.25, 100_000_000, 0, 13)
    }
    return Measurement(work, **(values | changes))  # type: ignore[arg-type]


def test_the_table_tells_rates_and_what_the_daemon_spent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = measurement(BY_NAME["list"], seconds=0.05, bytes=0, operations=100)
    report([measurement(BY_NAME["sequential"]), listed]).show()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "models at /mnt/m/d (direct data path)"
    assert lines[1] == "a file of 100MiB, 100 small files of 64KiB"
    rows = [line.split() for line in lines]
    assert ["one", "sequential", "reader", "2.00", "50", "0.25", "100", "13"] in rows
    assert ["list", "and", "stat", "them", "0.050", "2,000", "0.25", "100", "13"] in rows
    assert "page cache" not in " ".join(lines)


@pytest.mark.parametrize("names", [("create", "list"), ("create", "small")])
def test_files_that_are_not_listed_are_missed(tmp_path: Path, names: tuple[str, str]) -> None:
    material = own_material(tmp_path, MIB)
    bench(material, names[0])
    material.small_paths[0].unlink()
    with pytest.raises(WorkFailedError, match="99 files of 100 are listed"):
        bench(material, names[1])


@pytest.mark.parametrize(
    ("changes", "data_path", "note"),
    [
        ({"stayed_bytes": 40_000_000}, "direct", "40 MB stayed in the page cache"),
        ({"stayed_bytes": None}, None, "The kernel does not tell this user"),
        ({"spent": Spending(0.1, 0, 0, 0)}, "cache", "the disk cache, unless another program"),
        ({"spent": Spending(0.1, 0, 0, 0)}, "direct", "machine: another program has the file open"),
    ],
)
def test_reads_that_did_not_come_from_the_store_are_told(
    changes: dict[str, object],
    data_path: str | None,
    note: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report([measurement(BY_NAME["sequential"], **changes)], data_path).show()
    assert note in capsys.readouterr().out


def test_another_user_s_daemon_is_left_out_of_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = report([measurement(BY_NAME["sequential"], spent=None)], None)
    told.show()
    out = capsys.readouterr().out
    assert "(another user's daemon)" in out
    assert "CPU" not in out
    assert told.document()["works"][0]["daemon_cpu_seconds"] is None
