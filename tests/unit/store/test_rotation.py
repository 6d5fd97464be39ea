"""Credentials that change under a running mount: noticed, read again, and never lost by that."""

import contextlib
import datetime as dt
import json
import logging
import os
import threading
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.auth.ecs_role import EcsRoleProvider
from ossfs_py.store.auth.signing import AccessKey
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.metrics import Metrics
from tests.support.scripted_server import ScriptedServer, reply

OLD, NEW = AccessKey("old", "secret"), AccessKey("new", "secret")
LOOK_SECONDS = 2.5
"""More than the time between two looks at a file."""

NO_FILE = Path("/nonexistent")
"""Where no firmware says which machine it is."""


class Rotated:
    """A source with a clock that the test moves."""

    def __init__(self, **options: object) -> None:
        self.now = 100.0
        self.metrics = Metrics()
        self.source = CredentialSource(
            StoreOptions("models", **options),  # type: ignore[arg-type]
            self.metrics,
            oss_first=False,
            clock=lambda: self.now,
        )

    def later(self, seconds: float = LOOK_SECONDS) -> AccessKey | None:
        self.now += seconds
        return self.source.current()

    def count(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "ossfs_credential_refreshes_total", {"reason": reason}
        )


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "OSS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    return put(tmp_path / "passwd", "old:secret\n")


def put(path: Path, text: str) -> Path:
    """Replace a file as careful programs do."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.rename(path)
    return path


def role(key: str, lasts_seconds: float, names: tuple[str, str, str]) -> bytes:
    """What a metadata service answers."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=lasts_seconds)
    values = dict(zip(names, (key, "secret", "token"), strict=True))
    return json.dumps(
        {"Code": "Success", **values, "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
    ).encode()


def test_a_replaced_password_file_is_noticed_within_seconds(password_file: Path) -> None:
    rotated = Rotated(credentials_file=password_file)
    assert rotated.source.current() == OLD
    put(password_file, "new:secret\n")
    assert rotated.later(0.1) == OLD
    assert rotated.later() == NEW
    assert (rotated.count("changed"), rotated.count("refused")) == (1, 0)


def test_a_rewritten_password_file_is_noticed_too(password_file: Path) -> None:
    rotated = Rotated(credentials_file=password_file)
    assert rotated.source.current() == OLD
    password_file.write_text("new:secret\n# with another size\n")
    assert rotated.later() == NEW


@pytest.mark.parametrize("broken", ["half a li", None, "readable"])
def test_a_broken_file_leaves_the_last_key_in_use_and_is_told_once(
    password_file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    rotated = Rotated(credentials_file=password_file)
    assert rotated.source.current() == OLD
    if broken == "readable":
        put(password_file, "new:secret\n").chmod(0o644)
    elif broken is None:
        password_file.unlink()
    else:
        put(password_file, broken)
    assert [rotated.later() for _ in range(5)] == [OLD] * 5
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "the credentials stay as they are: " in warned[0]
    assert "secret\n" not in warned[0]
    put(password_file, "new:secret\n")
    assert rotated.later() == NEW


def test_a_rotated_profile_is_noticed(tmp_path: Path) -> None:
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
    put(tmp_path / "credentials", text.format("old"))
    rotated = Rotated()
    assert rotated.source.current() == OLD
    put(tmp_path / "credentials", text.format("new"))
    assert rotated.later() == NEW


def test_a_refused_key_is_read_again_at_once(password_file: Path) -> None:
    rotated = Rotated(credentials_file=password_file)
    assert rotated.source.current() == OLD
    put(password_file, "new:secret\n")
    rotated.now += 1
    assert rotated.source.renew(rotated.now, True)
    assert rotated.source.current() == NEW
    assert rotated.count("refused") == 1


def test_a_refused_key_that_is_still_the_only_one_is_no_news(password_file: Path) -> None:
    rotated = Rotated(credentials_file=password_file)
    rotated.source.current()
    asked_at = rotated.now = rotated.now + 60
    assert not rotated.source.renew(asked_at, True)
    password_file.unlink()
    with pytest.raises(EnvironmentProblemError, match="cannot be read"):
        rotated.source.renew(asked_at, True)
    assert rotated.source.current() == OLD


def test_thirty_requests_refused_at_once_read_the_key_once(
    password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = Rotated(credentials_file=password_file)
    rotated.source.current()
    asked_at = rotated.now = rotated.now + 60
    put(password_file, "new:secret\n")
    renewed: list[bool] = []
    threads = [
        threading.Thread(target=lambda: renewed.append(rotated.source.renew(asked_at, True)))
        for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert renewed == [True] * 30
    assert rotated.count("refused") == 1


def test_answers_that_may_be_about_the_object_have_the_key_read_rarely(
    tmp_path: Path,
) -> None:
    calls = process(tmp_path, "old")
    rotated = Rotated()
    assert rotated.source.current() == OLD
    for _ in range(30):
        rotated.now += 1
        rotated.source.renew(rotated.now, False)
    assert 3 <= len(calls.read_text()) <= 4


AWS_NAMES = ("AccessKeyId", "SecretAccessKey", "Token")
OSS_NAMES = ("AccessKeyId", "AccessKeySecret", "SecurityToken")


def test_an_instance_s_role_is_asked_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = (reply(200, b"tok"), reply(200, b"my-role"), reply(200, role("r", 7e4, AWS_NAMES)))
    with ScriptedServer([[[answer]] for answer in answers]) as server:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        rotated = Rotated()
        assert rotated.source.current() == AccessKey("r", "secret", "token")
        assert rotated.source.origin() == "the instance's role"
    assert server.requests[0].method == "PUT"
    asked = {seen.headers.get("x-aws-ec2-metadata-token") for seen in server.requests[1:]}
    assert asked == {"tok"}


def test_a_ram_role_is_asked_before_its_key_expires() -> None:
    scripts = [
        [[answer]]
        for key, lasts in (("first", 60), ("second", 7 * 3600))
        for answer in (
            reply(200, b"tok"),
            reply(200, b"my-role"),
            reply(200, role(key, lasts, OSS_NAMES)),
        )
    ]
    with ScriptedServer(scripts) as server:
        found = EcsRoleProvider(f"127.0.0.1:{server.port}", NO_FILE).load()
        assert found is not None
        assert found.get_frozen_credentials().access_key == "second"


def process(tmp_path: Path, key: str, **more: str) -> Path:
    """Configure a credential_process; the file that gets a letter at each call."""
    calls = tmp_path / "calls"
    answer = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret", **more}
    put(tmp_path / "answer", json.dumps(answer))
    script = tmp_path / "process"
    script.write_text(f"#!/bin/sh\nprintf x >>{calls}\ncat {tmp_path}/answer\n")
    script.chmod(0o700)
    if not (tmp_path / "config").exists():
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    return calls


def test_a_credential_process_is_asked_again_when_its_key_is_refused(tmp_path: Path) -> None:
    calls = process(tmp_path, "old")
    rotated = Rotated()
    assert rotated.source.current() == OLD
    assert "credential_process" in rotated.source.origin()
    process(tmp_path, "new")
    assert rotated.later() == OLD
    assert rotated.source.renew(rotated.now, True)
    assert rotated.source.current() == NEW
    assert calls.read_text() == "xx"


def test_a_process_with_short_lived_keys_is_not_asked_at_every_request(tmp_path: Path) -> None:
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)).isoformat()
    calls = process(tmp_path, "old", Expiration=soon)
    rotated = Rotated()
    for _ in range(100):
        rotated.source.current()
    assert len(calls.read_text()) <= 2


def test_a_source_that_falls_ill_leaves_the_key_that_still_holds(tmp_path: Path) -> None:
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)).isoformat()
    process(tmp_path, "old", Expiration=soon)
    rotated = Rotated()
    assert rotated.source.current() == OLD
    (tmp_path / "answer").unlink()
    assert rotated.later() == OLD


def test_a_process_that_hangs_is_waited_for_once_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossfs_py.store.auth.credentials._PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("ossfs_py.store.auth.credentials._JUST_NOW_SECONDS", 60.0)
    process(tmp_path, "old")
    rotated = Rotated()
    rotated.source.current()
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "process").write_text(f"#!/bin/sh\ncat {tmp_path}/gate\n")
    rotated.now += 120
    outcomes: list[bool | str] = []

    def renew() -> None:
        try:
            outcomes.append(rotated.source.renew(rotated.now, True))
        except EnvironmentProblemError as exc:
            outcomes.append(str(exc))

    threads = [threading.Thread(target=renew) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(False) == 7
    (tmp_path / "gate").write_text("")


def test_a_process_that_hangs_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ossfs_py.store.auth.credentials._PATIENCE_SECONDS", 0.5)
    gate = tmp_path / "gate"
    process(tmp_path, "old")
    rotated = Rotated()
    assert rotated.source.current() == OLD
    # From now on it answers when somebody opens the other end of the pipe.
    os.mkfifo(gate)
    answer = json.dumps({"Version": 1, "AccessKeyId": "new", "SecretAccessKey": "secret"})
    (tmp_path / "process").write_text(f"#!/bin/sh\ncat {gate}\n")
    rotated.now += 60
    asked_at = rotated.now
    with pytest.raises(EnvironmentProblemError, match="the source of the credentials did not"):
        rotated.source.renew(asked_at, True)
    assert rotated.source.current() == OLD
    gate.write_text(answer)
    while rotated.source.current() == OLD:
        rotated.now += 2
        with contextlib.suppress(EnvironmentProblemError):
            rotated.source.renew(asked_at, True)
    assert rotated.source.current() == NEW
