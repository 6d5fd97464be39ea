"""``ossfs-py health`` without a name, where mounts come and go."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ossfs_py.cli.health import health
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host import running


def asked(monkeypatch: pytest.MonkeyPatch, *served: list[Path]) -> object:
    """What it ends with where these are served at each look."""
    looks = iter(served)
    monkeypatch.setattr(
        running, "running_mounts", lambda: [SimpleNamespace(mountpoint=p) for p in next(looks)]
    )
    result = CliRunner().invoke(health, standalone_mode=False)
    return result.exception or result.return_value


def test_a_mount_that_ends_while_it_is_asked_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert asked(monkeypatch, [tmp_path], []) == 0


def test_a_daemon_that_serves_nothing_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    problem = asked(monkeypatch, [tmp_path], [tmp_path])
    assert isinstance(problem, EnvironmentProblemError)
    assert str(problem) == f"nothing is mounted at {tmp_path}"
