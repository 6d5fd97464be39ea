"""The table of ``ossfs-py versions``."""

from typing import Any

import click
import pytest

from ossfs_py.cli import versions as command
from ossfs_py.control import client

VERSION_ID = "6712dec3d1ece2aad50167ccd2cbe1f0"
ROW = {
    "time": 0.0,
    "bytes": 25,
    "etag": "1dba654cafbe577fe17ac77b6b7f0a11",
    "storage_class": "STANDARD",
    "writer": "somebody@a-machine-with-a-long-name",
    "version_id": VERSION_ID,
    "deleted": False,
}


class Mount:
    """A mount that knows one version and one deletion."""

    def __enter__(self) -> "Mount":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, _name: str, _arguments: dict[str, str]) -> dict[str, Any]:
        return {"versions": [ROW, ROW | {"deleted": True}], "more": 0}


def test_a_version_is_named_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "mount_of", lambda _path: (None, "config.json"))
    monkeypatch.setattr(client.ControlClient, "of", lambda _entry: Mount())
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command.versions.main(["/mnt/models/config.json"], standalone_mode=False)
    heading, written, deleted = (
        line.rstrip() for line in click.unstyle(capsys.readouterr().out).splitlines()
    )
    assert heading.split()[-1] == "VERSION"
    assert written.endswith(VERSION_ID)
    assert str(ROW["etag"]) in written
    assert " deleted " in deleted
    assert deleted.endswith(VERSION_ID)
