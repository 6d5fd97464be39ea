"""Where credentials are taken from, in which order, and what is said when they are broken."""

import logging
import os
import subprocess
from pathlib import Path

import botocore.session
import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.auth.ecs_role import EcsRoleProvider
from ossfs_py.store.auth.passwordfile import read_password_file
from ossfs_py.store.auth.region import configured_region
from ossfs_py.store.auth.session import make_session
from ossfs_py.store.auth.signing import AccessKey
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.metrics import Metrics
from tests.support.scripted_server import ScriptedServer, reply

NO_FILE = Path("/nonexistent")
"""Where no firmware says which machine it is."""


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for prefix in ("AWS", "OSS"):
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ACCESS_KEY_SECRET", "SESSION_TOKEN"):
            monkeypatch.delenv(f"{prefix}_{name}", raising=False)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def password_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "passwd"
    path.write_text(text)
    path.chmod(mode)
    return path


def source(*, oss: bool = False, **changes: object) -> CredentialSource:
    options = StoreOptions("models", **changes)  # type: ignore[arg-type]
    return CredentialSource(options, Metrics(), oss_first=oss)


def set_keys(monkeypatch: pytest.MonkeyPatch, *families: str) -> None:
    if "aws" in families:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "aws-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    if "oss" in families:
        monkeypatch.setenv("OSS_ACCESS_KEY_ID", "oss-id")
        monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "oss-secret")
        monkeypatch.setenv("OSS_SESSION_TOKEN", "oss-token")


AWS = AccessKey("aws-id", "aws-secret")
OSS = AccessKey("oss-id", "oss-secret", "oss-token")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id:secret\n", AccessKey("id", "secret")),
        ("# mine\n\n  id:secret  \n", AccessKey("id", "secret")),
        ("id:secret\nmodels:id2:secret2\n", AccessKey("id2", "secret2")),
        ("models:id2:secret2\nid:secret\n", AccessKey("id2", "secret2")),
        ("other:id2:secret2\nid:secret\n", AccessKey("id", "secret")),
        ("id:secret\r\n", AccessKey("id", "secret")),
    ],
)
def test_the_bucket_s_own_line_goes_before_the_general_one(
    tmp_path: Path, text: str, expected: AccessKey
) -> None:
    assert read_password_file(password_file(tmp_path, text), "models") == expected


def test_a_file_that_root_has_handed_out_to_a_group_of_ours_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = password_file(tmp_path, "id:secret\n", 0o440)
    group = path.stat().st_gid
    # Whose it is cannot be chosen as an ordinary user: the process's own number is bent instead.
    monkeypatch.setattr(os, "fstat", lambda fd: _as_roots(path.stat()))
    monkeypatch.setattr(os, "getgroups", lambda: [group])
    assert read_password_file(path, "models") == AccessKey("id", "secret")
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: group + 1)
    with pytest.raises(EnvironmentProblemError, match="can be read by others"):
        read_password_file(path, "models")


def _as_roots(info: os.stat_result) -> os.stat_result:
    return os.stat_result((*info[:4], 0, *info[5:]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test:tester testing\n", AccessKey("test:tester", "testing")),
        ("id sec:ret\n", AccessKey("id", "sec:ret")),
        ("models test:tester\ttest:ing\nid:secret\n", AccessKey("test:tester", "test:ing")),
    ],
)
def test_ids_and_secrets_with_a_colon_stand_apart_by_spaces(
    tmp_path: Path, text: str, expected: AccessKey
) -> None:
    assert read_password_file(password_file(tmp_path, text), "models") == expected


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(EnvironmentProblemError, match="chmod 600"):
        read_password_file(password_file(tmp_path, "id:secret\n", mode), "models")


@pytest.mark.parametrize("line", ["sesame", ":sesame", "a:b:c:sesame", "id: sesame", "id:"])
def test_a_broken_line_is_named_by_its_number_not_its_content(tmp_path: Path, line: str) -> None:
    path = password_file(tmp_path, f"# one\nid:fine\n{line}\n")
    with pytest.raises(EnvironmentProblemError, match="line 3") as caught:
        read_password_file(path, "models")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "other:id:secret\n"])
def test_a_file_without_an_entry_for_the_bucket_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(EnvironmentProblemError, match="no entry for the bucket 'models'"):
        read_password_file(password_file(tmp_path, text), "models")


def test_a_missing_or_binary_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblemError, match="No such file"):
        read_password_file(tmp_path / "none", "models")
    path = password_file(tmp_path, "")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EnvironmentProblemError, match="not a text file"):
        read_password_file(path, "models")


def test_anonymous_goes_before_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_keys(monkeypatch, "aws", "oss")
    path = password_file(tmp_path, "id:secret\n")
    assert source(anonymous=True, credentials_file=path).current() is None


def test_a_named_file_goes_before_profile_and_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_keys(monkeypatch, "aws", "oss")
    path = password_file(tmp_path, "id:secret\n")
    assert source(oss=True, credentials_file=path).current() == AccessKey("id", "secret")


def test_a_named_profile_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_keys(monkeypatch, "aws", "oss")
    path = tmp_path / "credentials"
    path.write_text("[work]\naws_access_key_id = w\naws_secret_access_key = s\n")
    path.chmod(0o600)
    assert source(oss=True, profile="work").current() == AccessKey("w", "s")


@pytest.mark.parametrize(
    ("families", "oss", "expected"),
    [
        (("aws",), False, AWS),
        (("oss",), False, OSS),
        (("aws",), True, AWS),
        (("oss",), True, OSS),
        (("aws", "oss"), False, AWS),
        (("aws", "oss"), True, OSS),
    ],
)
def test_variables_of_the_endpoint_s_own_family_go_first(
    monkeypatch: pytest.MonkeyPatch, families: tuple[str, ...], oss: bool, expected: AccessKey
) -> None:
    set_keys(monkeypatch, *families)
    assert source(oss=oss).current() == expected


def test_a_profile_that_the_environment_names_has_to_be_there_beside_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_keys(monkeypatch, "aws")
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(EnvironmentProblemError, match="profile 'nope'"):
        source().current()


def test_a_file_that_comes_later_is_seen_and_the_variables_still_go_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_keys(monkeypatch, "aws")
    credentials = source()
    assert credentials.current() == AWS
    shared_file(tmp_path, "config", "[default]\nregion = elsewhere\n", 0o600)
    credentials.refresh()
    assert credentials.current() == AWS
    assert configured_region(None) == "elsewhere"


@pytest.mark.parametrize("family", ["aws", "oss"])
def test_a_key_in_variables_may_end_and_be_followed_by_another(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    name = family.upper()
    set_keys(monkeypatch, family)
    monkeypatch.setenv(f"{name}_CREDENTIAL_EXPIRATION", "2999-01-01T00:00:00Z")
    credentials = source(oss=family == "oss")
    assert credentials.current() == (AWS if family == "aws" else OSS)
    assert name in credentials.origin()


def test_half_a_pair_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "oss-id")
    with pytest.raises(
        EnvironmentProblemError, match="the environment lacks OSS_ACCESS_KEY_SECRET"
    ):
        source(oss=True).current()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "aws-id\n"),
        ("AWS_ACCESS_KEY_ID", "\u043a\u043b\u044e\u0447"),
        ("AWS_SECRET_ACCESS_KEY", "aws-secret\n"),
        ("AWS_SESSION_TOKEN", "token\r\nHost: other"),
    ],
)
def test_what_no_header_can_carry_is_told_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    set_keys(monkeypatch, "aws")
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentProblemError, match="have a line break or another") as caught:
        source().current()
    assert "environment" in str(caught.value)
    assert value.strip() not in str(caught.value)


def test_no_credentials_at_all_are_told() -> None:
    with pytest.raises(EnvironmentProblemError, match="no credentials found"):
        source().current()


def test_an_unknown_profile_is_told() -> None:
    with pytest.raises(EnvironmentProblemError, match="profile 'nope'"):
        make_session("nope")


def test_a_broken_configuration_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("no section\n")
    with pytest.raises(EnvironmentProblemError, match="cannot be parsed"):
        make_session(None)


def test_refresh_reads_the_file_again_and_keeps_the_old_key_when_it_is_broken(
    tmp_path: Path,
) -> None:
    path = password_file(tmp_path, "id:old\n")
    credentials = source(credentials_file=path)
    assert credentials.current() == AccessKey("id", "old")
    path.write_text("id:new\n")
    assert credentials.current() == AccessKey("id", "old")
    credentials.refresh()
    assert credentials.current() == AccessKey("id", "new")
    path.write_text("broken\n")
    with pytest.raises(EnvironmentProblemError):
        credentials.refresh()
    assert credentials.current() == AccessKey("id", "new")


def test_the_container_role_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (
        b'{"AccessKeyId": "role", "SecretAccessKey": "s", "Token": "t", '
        b'"Expiration": "2999-01-01T00:00:00Z"}'
    )
    with ScriptedServer([[[reply(200, answer)]]]) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/creds")
        assert source().current() == AccessKey("role", "s", "t")


ROLE = (
    b'{"Code": "Success", "AccessKeyId": "role", "AccessKeySecret": "s", "SecurityToken": "t", '
    b'"Expiration": "2999-01-01T00:00:00Z"}'
)


def test_an_ecs_instance_hands_out_the_key_of_its_role() -> None:
    scripts = [[[reply(200, b"tok")]], [[reply(200, b"my-role")]], [[reply(200, ROLE)]]]
    with ScriptedServer(scripts) as server:
        found = EcsRoleProvider(f"127.0.0.1:{server.port}", NO_FILE).load()
    assert found is not None
    assert tuple(found.get_frozen_credentials())[:3] == ("role", "s", "t")
    assert [seen.method for seen in server.requests] == ["PUT", "GET", "GET"]
    assert server.requests[2].target.endswith("/security-credentials/my-role")
    assert server.requests[2].headers["x-aliyun-ecs-metadata-token"] == "tok"


def test_a_machine_that_is_no_ecs_instance_asks_nobody_for_a_role(tmp_path: Path) -> None:
    """On other networks the address is somebody's who could hand out any key."""
    product = tmp_path / "product_name"
    product.write_text("ThinkPad X1\n")
    with ScriptedServer([[[reply(200, b"tok")]]]) as server:
        assert EcsRoleProvider(f"127.0.0.1:{server.port}", product).load() is None
    assert not server.requests


def test_an_instance_that_knows_no_tokens_is_asked_without() -> None:
    scripts = [[[reply(404)]], [[reply(200, b"my-role")]], [[reply(200, ROLE)]]]
    with ScriptedServer(scripts) as server:
        assert EcsRoleProvider(f"127.0.0.1:{server.port}", NO_FILE).load() is not None
    assert "x-aliyun-ecs-metadata-token" not in server.requests[1].headers


@pytest.mark.parametrize("answers", [[404, 404], [200, 404], [500, 200, 403]])
def test_an_instance_without_a_role_has_no_credentials(answers: list[int]) -> None:
    with ScriptedServer([[[reply(status, b"x")]] for status in answers]) as server:
        assert EcsRoleProvider(f"127.0.0.1:{server.port}", NO_FILE).load() is None


# -- whose the files are ---------------------------------------------------------------------

KEYS = "[default]\naws_access_key_id = w\naws_secret_access_key = s\n"
STRANGER = 65534


def give_away(path: Path) -> None:
    """Make a file somebody else's, who is not root either."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*root, "chown", str(STRANGER), str(path)], check=True)


def shared_file(tmp_path: Path, name: str, text: str, mode: int) -> Path:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [("credentials", KEYS), ("config", KEYS), ("config", "[default]\nregion = x\n")],
)
def test_a_shared_file_of_somebody_else_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """Whoever owns the configuration says which program is run for a key."""
    shared_file(tmp_path, "credentials", KEYS, 0o600)
    give_away(shared_file(tmp_path, name, text, 0o600))
    with pytest.raises(EnvironmentProblemError, match=f"{name} belongs to another user"):
        source().current()


def test_a_password_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = password_file(tmp_path, "id:secret\n")
    give_away(path)
    with pytest.raises(EnvironmentProblemError, match="belongs to another user"):
        read_password_file(path, "models")


@pytest.mark.parametrize(
    ("name", "text", "mode"),
    [
        ("credentials", KEYS, 0o644),
        ("credentials", KEYS, 0o602),
        ("config", KEYS, 0o644),
        ("config", "[default]\naws_session_token=t\n", 0o604),
        ("config", "[default]\nregion = x\n", 0o646),
    ],
)
def test_a_shared_file_with_secrets_that_others_can_read_is_refused(
    tmp_path: Path, name: str, text: str, mode: int
) -> None:
    shared_file(tmp_path, "credentials", KEYS, 0o600)
    shared_file(tmp_path, name, text, mode)
    with pytest.raises(EnvironmentProblemError, match=f"{name} can be .* by others .*chmod 600"):
        source().current()


def test_no_program_is_run_that_a_stranger_may_have_named(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    shared_file(tmp_path, "config", f"[default]\ncredential_process = touch {ran}\n", 0o646)
    with pytest.raises(EnvironmentProblemError, match="changed by others"):
        source().current()
    assert not ran.exists()


@pytest.mark.parametrize(
    ("name", "text", "mode", "told"),
    [
        ("credentials", KEYS, 0o600, False),
        ("credentials", KEYS, 0o640, True),
        ("config", "[default]\nregion = x\n", 0o644, False),
        ("config", "[default]\nregion = x\n", 0o664, True),
        ("config", "[default]\n# aws_secret_access_key = s\n", 0o644, False),
    ],
)
def test_what_many_homes_and_pods_have_is_taken_and_told_once_where_it_matters(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    text: str,
    mode: int,
    told: bool,
) -> None:
    caplog.set_level(logging.WARNING)
    shared_file(tmp_path, "credentials", KEYS, 0o600)
    shared_file(tmp_path, name, text, mode)
    credentials = source()
    assert credentials.current() == AccessKey("w", "s")
    credentials.refresh()
    assert len([one for one in caplog.messages if "by its group" in one]) == told


def test_files_that_nobody_reads_a_key_from_are_nobodys_business(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_keys(monkeypatch, "aws")
    shared_file(tmp_path, "credentials", KEYS, 0o644)
    assert source().current() == AWS
    with pytest.raises(EnvironmentProblemError, match="read by others"):
        source(profile="default").current()


def test_files_of_boto_2_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boto = shared_file(tmp_path, "boto.cfg", KEYS.replace("default", "Credentials"), 0o644)
    monkeypatch.setenv("BOTO_CONFIG", str(boto))
    assert botocore.session.Session().get_credentials() is not None, "nothing is to be proved"
    with pytest.raises(EnvironmentProblemError, match="no credentials found"):
        source().current()
