"""``ossfs-py cleanup``: how long it waits for a mount that does not answer."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ossfs_py.cli.cleanup import cleanup
from ossfs_py.host import preparing
from ossfs_py.host.mountpoint import Machine
from ossfs_py.host.standing import ANSWER_SECONDS, Seen, Standing


@pytest.mark.parametrize(("keeper", "seconds"), [("", ANSWER_SECONDS), ("keeper = '/k'\n", 0.5)])
def test_a_mount_that_is_kept_for_its_next_daemon_does_not_hold_that_up(
    keeper: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def silent(mountpoint: Path, _machine: Machine, patience_seconds: float) -> Seen:
        waited.append(patience_seconds)
        return Seen(mountpoint, Standing.SILENT)

    monkeypatch.setattr(preparing, "look_at", silent)
    config = tmp_path / "models.toml"
    config.write_text(f"bucket = 'b'\nmountpoint = '{tmp_path}'\nread-only = true\n{keeper}")
    outcome = CliRunner().invoke(cleanup, ["--config", str(config)], catch_exceptions=False)
    assert (outcome.exit_code, outcome.output) == (0, "")
    assert waited == [seconds]
