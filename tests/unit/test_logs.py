"""Where log lines go, and what is kept out of them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ossfs_py.config import Settings
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.logs import Logs, open_logs

log = logging.getLogger("ossfs_py.tests")


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    opened = open_logs(settings(tmp_path))
    yield opened
    opened.close()
    logging.getLogger().setLevel(logging.WARNING)


def settings(tmp_path: Path, **more: object) -> Settings:
    values: dict[str, object] = {
        "bucket": "models",
        "mountpoint": "/mnt/models",
        "log_file": tmp_path / "log",
        **more,
    }
    return Settings.model_validate(values)


@pytest.mark.parametrize(
    "line",
    [
        "GET http://h/b/k?X-Amz-Signature=hunter2&X-Amz-Date=today",
        "GET http://h/b/k?X-Amz-Credential=hunter2/20250101/x",
        "GET http://h/b/k?OSSAccessKeyId=hunter2&Signature=hunter2",
        "Authorization: AWS4-HMAC-SHA256 Credential=hunter2, Signature=hunter2",
        "{'Authorization': 'OSS hunter2'}",
        "X-Amz-Security-Token: hunter2",
        "aws_secret_access_key = hunter2",
        '{"SecretAccessKey": "hunter2"}',
    ],
)
def test_secrets_are_blanked(line: str, logs: Logs, tmp_path: Path) -> None:
    log.warning("%s", line)
    text = (tmp_path / "log").read_text()
    assert "hunter2" not in text
    assert "[redacted]" in text


def test_known_secrets_are_blanked_in_tracebacks_too(logs: Logs, tmp_path: Path) -> None:
    logs.add_secrets(["correct-horse", "ab"])
    try:
        raise ValueError("what is correct-horse about")
    except ValueError:
        log.exception("failed")
    text = (tmp_path / "log").read_text()
    assert "what is [redacted] about" in text
    assert "Traceback" in text


def test_ordinary_lines_stay_as_they_are(logs: Logs, tmp_path: Path) -> None:
    log.warning("GetObject 'models/a.safetensors': reset by peer (request id 17)")
    assert (
        "WARNING ossfs_py.tests: GetObject 'models/a.safetensors': reset by peer (request id 17)"
        in (tmp_path / "log").read_text()
    )


def test_the_level_can_be_changed_while_running(logs: Logs, tmp_path: Path) -> None:
    log.debug("first")
    logs.set_level("debug")
    log.debug("second")
    logging.getLogger("botocore.auth").debug("StringToSign: third")
    text = (tmp_path / "log").read_text()
    assert "first" not in text
    assert "second" in text
    assert "third" not in text


def test_a_rotated_file_is_opened_anew(logs: Logs, tmp_path: Path) -> None:
    log.warning("before")
    (tmp_path / "log").rename(tmp_path / "log.1")
    logs.reopen()
    log.warning("after")
    assert "before" in (tmp_path / "log.1").read_text()
    assert "after" in (tmp_path / "log").read_text()


def test_a_log_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "log"
    with pytest.raises(
        EnvironmentProblemError,
        match=f"cannot write the log file {missing}: No such file or directory",
    ):
        open_logs(settings(tmp_path, log_file=missing))


def test_a_daemon_without_syslog_logs_into_its_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossfs_py.logs._SYSLOG_SOCKET", tmp_path / "no-socket")
    found = settings(tmp_path, log_file=None, state_dir=tmp_path / "state")
    opened = open_logs(found)
    log.warning("hello")
    opened.close()
    assert "hello" in (tmp_path / "state/ossfs-py.log").read_text()
    logging.getLogger().setLevel(logging.WARNING)


def test_in_the_foreground_standard_error_is_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_logs(settings(tmp_path, log_file=None, foreground=True))
    log.warning("hello")
    opened.close()
    assert "hello" in capsys.readouterr().err
    logging.getLogger().setLevel(logging.WARNING)
