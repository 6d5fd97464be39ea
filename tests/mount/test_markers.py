"""Directories on a server that makes files of the objects that stand for empty ones (rclone)."""

from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mounting import Mount
from tests.support.servers import rclone
from tests.support.servers.launching import ACCESS_KEY, SECRET_KEY

BUCKET = "files"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{ACCESS_KEY}:{SECRET_KEY}\n")
    return path


def test_a_made_directory_takes_files_and_is_there_as_long_as_something_is_in_it(
    mount: MountFactory, tmp_path: Path, keys: Path
) -> None:
    home = tmp_path / "served"
    home.mkdir()
    with rclone.run(home) as server:
        stored = home / "data" / BUCKET
        stored.mkdir()

        def mounted() -> Mount:
            return mount(BUCKET, endpoint=server.endpoint, credentials_file=keys, retry_budget="5s")

        one = mounted()
        path = one.path
        for name in ("full", "empty", "removed", "moved"):
            (path / name).mkdir()
        (path / "full" / "below").mkdir()
        assert not [entry for entry in stored.rglob("*") if entry.is_file()]
        (path / "full" / "below" / "file").write_bytes(b"content")
        (path / "removed").rmdir()
        (path / "moved").rename(path / "elsewhere")
        (path / "elsewhere").chmod(0o700)
        assert sorted(entry.name for entry in path.iterdir()) == ["elsewhere", "empty", "full"]
        assert (path / "full" / "below" / "file").read_bytes() == b"content"
        assert one.log.count("makes files of empty directories") == 1
        assert one.unmount() == 0
        again = mounted()
        assert (again.path / "full" / "below" / "file").read_bytes() == b"content"
        assert "empty" not in {entry.name for entry in again.path.iterdir()}
        assert again.unmount() == 0
