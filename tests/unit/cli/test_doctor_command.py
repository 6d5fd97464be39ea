"""How ``ossfs-py doctor`` reads its arguments."""

import json
from pathlib import Path

import pytest

from ossfs_py.cli.doctor import doctor
from ossfs_py.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *argv])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "a", "b", "c")
    assert (code, err.splitlines()[0]) == (2, "ossfs-py: unexpected argument 'c'")
    code, _, err = run(capsys, "bucket", "--addressing", "sideways")
    assert code == 2
    assert "--addressing: 'sideways' is none of" in err


def test_the_machine_alone_is_looked_at_without_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = run(capsys, "--json")
    found = {row["check"] for row in json.loads(out)}
    assert {"kernel", "fuse device", "privilege", "fusermount3", "open files"} < found
    assert not {"name", "list", "mountpoint"} & found


def test_a_single_path_is_a_mountpoint(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "/nonexistent/mountpoint", "--json")
    found = {row["check"]: row for row in json.loads(out)}
    assert code == 1
    assert found["mountpoint"]["told"] == "/nonexistent/mountpoint does not exist"
    assert "list" not in found


def test_it_takes_the_options_of_a_mount_that_lead_to_the_store(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {parameter.name for parameter in doctor.params}
    assert {"endpoint", "region", "profile", "credentials_file", "ca_bundle"} < names
    assert not names & {"memory_limit_bytes", "block_size_bytes", "log_level"}
    _, out, _ = run(capsys, "--help")
    assert "--endpoint URL" in out
    assert "Exit codes:" in out


def test_a_mount_without_the_fast_lane_does_not_survive_its_daemon(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "models.toml"
    config.write_text('fuse-lane = "off"')
    _, out, _ = run(capsys, "--json", "--config", str(config))
    (told,) = [row["told"] for row in json.loads(out) if row["check"] == "restarts"]
    assert told.endswith("need the fast lane, and --fuse-lane is off")
