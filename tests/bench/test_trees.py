"""The works of the benchmark of trees do what they say, on a local disk."""

import shutil
from pathlib import Path

import pytest

from tests.bench.trees import PEER_NAMES, WORKS, Material, TreeWork, peers_named


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Material(tmp_path_factory.mktemp("material"))
    made.make()
    return made.root


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_a_work_leaves_as_many_files_as_it_says(
    work: TreeWork, material: Path, tmp_path: Path
) -> None:
    if work.needs and shutil.which(work.needs) is None:
        assert work.needs == "uv", "the others are installed for the tests"
        return
    for number in range(work.there):
        folder = tmp_path / "old" / f"d{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").touch()
    work.run(tmp_path, material)
    left = sum(1 for path in tmp_path.rglob("*") if path.is_file())
    assert left > 0 if work.leaves is None else left == work.leaves


def test_each_mount_of_the_table_is_known() -> None:
    assert list(peers_named(list(PEER_NAMES))) == list(PEER_NAMES)
    assert len({work.name for work in WORKS}) == len(WORKS)
