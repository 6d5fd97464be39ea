"""Metadata answers kept beside the disk cache."""

import stat
from pathlib import Path

import pytest

from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.answers import MetadataMemory
from ossfs_py.namespace.remembered import MetadataFile

ANSWERS = [(f"k{n}", "etag", 5, {"mode": "33188", "ü": "é"}) for n in range(10)]


def test_answers_come_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite3"
    MetadataFile(path, 100).save(ANSWERS)
    assert sorted(MetadataFile(path, 100).load()) == sorted(ANSWERS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_keeps_no_more_than_it_may(tmp_path: Path) -> None:
    file = MetadataFile(tmp_path / "metadata.sqlite3", 4)
    for answer in ANSWERS:
        file.save([answer])
    assert [key for key, *_ in file.load()] == ["k9", "k8", "k7", "k6"]


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\1" * 5000]
)
def test_a_damaged_file_is_begun_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metadata.sqlite3"
    path.write_bytes(content)
    file = MetadataFile(path, 100)
    assert file.load() == []
    assert "created again" in caplog.text
    file.save(ANSWERS)
    assert len(file.load()) == 10


def test_without_a_directory_nothing_is_kept_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = MetadataFile(tmp_path / "gone" / "metadata.sqlite3", 100)
    file.save(ANSWERS)
    assert file.load() == []
    assert caplog.text.count("in memory only") == 1


def test_only_what_is_new_is_saved_again() -> None:
    memory = MetadataMemory(100)
    memory.remember(ObjectInfo("early", 1, "e", 0, metadata={}))
    memory.recall(ANSWERS)
    memory.remember(ObjectInfo("k0", 1, "etag", 5_000_000_000, metadata={}))
    memory.remember(ObjectInfo("late", 1, "e", 0, metadata={"a": "b"}))
    assert [key for key, *_ in memory.take_new()] == ["early", "late"]
    assert memory.take_new() == []
    assert memory.complete(ObjectInfo("k3", 1, "etag", 5_900_000_000)).metadata == ANSWERS[3][3]
