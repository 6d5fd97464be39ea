"""Where log lines go, and what is kept out of them."""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import ossfs_py
from ossfs_py.config import Settings
from ossfs_py.daemon.options import log_options
from ossfs_py.errors import EnvironmentProblemError, StoreUnavailableError
from ossfs_py.telemetry.loghandlers import JournalHandler
from ossfs_py.telemetry.loglevels import AREAS, LogLevels
from ossfs_py.telemetry.logs import Logs, open_logs

log = logging.getLogger("ossfs_py.tests")


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    with opened(settings(tmp_path)) as found:
        yield found


@contextlib.contextmanager
def opened(found: Settings, *, in_journal: bool = False) -> Iterator[Logs]:
    logs = open_logs(log_options(found), in_journal=in_journal)
    try:
        yield logs
    finally:
        logs.close()
        logs.set_levels(LogLevels("warning"))


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
    logs.set_levels(LogLevels("debug"))
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
        open_logs(log_options(settings(tmp_path, log_file=missing)))


def test_a_daemon_without_syslog_logs_into_its_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossfs_py.telemetry.logs._SYSLOG_SOCKET", tmp_path / "no-socket")
    found = settings(tmp_path, log_file=None, state_dir=tmp_path / "state")
    with opened(found):
        log.warning("hello")
    assert "hello" in (tmp_path / "state/ossfs-py.log").read_text()


def test_in_the_foreground_standard_error_is_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(settings(tmp_path, log_file=None, foreground=True)):
        log.warning("hello")
    assert "hello" in capsys.readouterr().err


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_of_json_carries_what_the_message_is_about(tmp_path: Path) -> None:
    with opened(settings(tmp_path, log_format="json")) as logs:
        logs.add_secrets(["correct-horse"])
        log.error("it failed: %s", "correct-horse", extra={"key": "a/b", "attempts": 3, "path": ""})
        try:
            raise ValueError("correct-horse")
        except ValueError:
            log.exception("two\nlines")
    first, second = entries(tmp_path / "log")
    assert str(first.pop("time")).endswith("Z")
    assert first == {
        "level": "error",
        "logger": "ossfs_py.tests",
        "message": "it failed: [redacted]",
        "key": "a/b",
        "attempts": 3,
    }
    assert second["message"] == "two\nlines"
    assert "ValueError: [redacted]" in str(second["traceback"])


def test_an_area_has_a_level_of_its_own(tmp_path: Path) -> None:
    with opened(settings(tmp_path, log_level="error,store=debug")) as logs:
        logging.getLogger("ossfs_py.store.s3.retry").debug("of the store")
        logging.getLogger("ossfs_py.reading.fetching").warning("of the fetching")
        logs.set_levels(logs.levels.changed("transfer=warning,store=error"))
        logging.getLogger("ossfs_py.store.s3.retry").warning("no more of the store")
        logging.getLogger("ossfs_py.reading.fetching").warning("more of the fetching")
        assert str(logs.levels) == "error,store=error,transfer=warning"
        logs.set_levels(logs.levels.changed("info"))
        assert str(logs.levels) == "info"
    messages = [line.rpartition(": ")[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert messages == ["of the store", "more of the fetching"]


def test_every_module_that_logs_belongs_to_one_area() -> None:
    package = Path(ossfs_py.__file__).parent
    logging_modules = {
        path.relative_to(package).parts[0].removesuffix(".py")
        for path in package.rglob("*.py")
        if "getLogger(__name__)" in path.read_text()
    }
    known = [module for modules in AREAS.values() for module in modules]
    assert len(known) == len(set(known))
    assert logging_modules <= set(known)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("loud", "'loud' is none of debug, info, warning, error"),
        ("info,stor=debug", "'stor' is no area; there are fuse, files, names,"),
        ("store=", "'' is none of"),
        (" , ", "must not be empty"),
    ],
)
def test_levels_that_make_no_sense_are_told(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LogLevels().changed(text)


def test_a_log_file_begins_anew_at_its_size(tmp_path: Path) -> None:
    with opened(settings(tmp_path, log_file_size_bytes="64KiB")) as logs:
        for _ in range(300):
            log.info("x" * 1000)
        logs.reopen()
        log.info("the last")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 64 * 1024 for path in tmp_path.iterdir())
    assert "the last" in (tmp_path / "log").read_text()


def test_messages_that_cannot_be_written_are_counted_and_disturb_nobody(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    with opened(settings(tmp_path, log_file=directory / "log")):
        log.info("first")
        directory.rename(tmp_path / "away")
        log.info("second")
        log.info("third")
        directory.mkdir()
        log.info("fourth")
        log.info("fifth")
    lines = (directory / "log").read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        "fourth",
        "2 messages before this one could not be written",
        "fifth",
    ]


def journal_fields(datagram: bytes) -> dict[str, str]:
    """The fields of an entry in systemd's native protocol."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        length = int.from_bytes(rest[:8], "little")
        fields[name.decode()] = rest[8 : 8 + length].decode()
        datagram = rest[8 + length + 1 :]
    return fields


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        handler = JournalHandler(tmp_path / "journal")
        record = logging.LogRecord("ossfs_py.store", logging.ERROR, "", 0, "a\nb", None, None)
        record.key = "models/a"
        handler.handle(record)
        handler.close()
        assert journal_fields(journal.recv(65536)) == {
            "MESSAGE": "a\nb",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "ossfs-py",
            "SYSLOG_PID": str(os.getpid()),
            "OSSFS_LOGGER": "ossfs_py.store",
            "OSSFS_KEY": "models/a",
        }


def test_without_a_journal_standard_error_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossfs_py.telemetry.loghandlers._JOURNAL", tmp_path / "none")
    with opened(settings(tmp_path, log_file=None, foreground=True), in_journal=True):
        log.warning("hello")
    assert "hello" in capsys.readouterr().err


def test_syslog_gets_the_programs_name_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossfs_py.telemetry.logs._SYSLOG_SOCKET", tmp_path / "syslog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "syslog"))
        with opened(settings(tmp_path, log_file=None)):
            log.warning("hello")
        text = syslog.recv(4096).decode().rstrip("\0")
    assert text == f"<28>ossfs-py[{os.getpid()}]: WARNING ossfs_py.tests: hello"


def refused() -> StoreUnavailableError:
    return StoreUnavailableError(
        "503 SlowDown", operation="PutObject", key="a", request_id="17", attempts=4
    )


def test_a_line_about_a_store_error_ends_with_what_to_do(logs: Logs, tmp_path: Path) -> None:
    log.error("'a' stays unsaved: %s", refused())
    log.info("for your information: %s", refused())
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith(
        "'a' stays unsaved: PutObject 'a': 503 SlowDown after 4 attempts (request id 17); "
        + StoreUnavailableError.advice
    )
    assert second.endswith("(request id 17)")


def test_a_store_error_is_told_in_fields_too(tmp_path: Path) -> None:
    with opened(settings(tmp_path, log_format="json")):
        log.error("saving failed: %s", refused(), extra={"operation": "flush", "path": "/a"})
    (entry,) = entries(tmp_path / "log")
    told = {name: entry[name] for name in ("operation", "path", "key", "request_id", "attempts")}
    assert told == {
        "operation": "flush",
        "path": "/a",
        "key": "a",
        "request_id": "17",
        "attempts": 4,
    }
    assert entry["advice"] == StoreUnavailableError.advice
