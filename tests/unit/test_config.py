"""Settings: parsing, precedence, and every mistake told at once in the user's words."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.config import BadOptionsError, CommandLine, Loaded, Settings, load
from ossfs_py.config.machine import cgroup_memory_limits, default_memory_limit
from ossfs_py.config.settings import NOT_OPTIONS
from ossfs_py.config.units import (
    format_size,
    parse_count,
    parse_duration,
    parse_flag,
    parse_mode,
    parse_size,
)
from ossfs_py.host.running import runtime_dirs
from ossfs_py.telemetry.loglevels import LogLevels

GOOD: dict[str, object] = {"bucket": "models", "mountpoint": "/mnt/models"}


def loaded(
    *mount_options: str,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    **values: object,
) -> Loaded:
    line = CommandLine({**GOOD, **values}, mount_options, str(config) if config else None)
    return load(line, environ or {})


def settings(*mount_options: str, **values: object) -> Settings:
    return loaded(*mount_options, **values).settings


def problems(
    *mount_options: str,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    **values: object,
) -> tuple[str, ...]:
    with pytest.raises(BadOptionsError) as caught:
        loaded(*mount_options, environ=environ, config=config, **values)
    assert caught.value.exit_code == 2
    return caught.value.problems


# -- units ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("512M", 512 * 1024**2),
        ("512m", 512 * 1024**2),
        ("512MB", 512 * 1024**2),
        ("8GiB", 8 * 1024**3),
        ("1.5G", 3 * 1024**3 // 2),
        (" 2 TiB ", 2 * 1024**4),
        (4096, 4096),
    ],
)
def test_sizes_are_powers_of_1024(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "12Q", "-1", "1,5G", "1e3", "5iB", "0x10", True, 1.5, -1]
)
def test_malformed_sizes_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**62))
def test_a_formatted_size_reads_back_the_same(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("0", 0), ("1.5h", 5400), (60, 60)],
)
def test_durations_take_units(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 minutes", "-1s", "1h30", "inf", float("inf"), True])
def test_malformed_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "mode"), [("0644", 0o644), ("755", 0o755), ("0o600", 0o600)])
def test_modes_are_octal(text: str, mode: int) -> None:
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "0o", "0999", "rw-r--r--", "77777", 644])
def test_malformed_modes_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="octal"):
        parse_mode(text)


def test_flags_and_counts_refuse_other_words() -> None:
    assert parse_flag("YES") is True
    assert parse_flag("off") is False
    with pytest.raises(ValueError, match="neither true nor false"):
        parse_flag("maybe")
    with pytest.raises(ValueError, match="not a whole number"):
        parse_count("3.5")


# -- names and paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "bucket", "prefix"),
    [
        ("models", "models", ""),
        ("models/", "models", ""),
        ("models/llm", "models", "llm/"),
        ("models/llm/7b/", "models", "llm/7b/"),
        ("s3://models/llm", "models", "llm/"),
        ("oss://models", "models", ""),
        ("models:/llm", "models", "llm/"),
    ],
)
def test_the_bucket_argument_may_carry_a_prefix(written: str, bucket: str, prefix: str) -> None:
    found = settings(bucket=written)
    assert (found.bucket, found.prefix) == (bucket, prefix)
    assert found.source == f"{bucket}/{prefix}".rstrip("/")


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("", "BUCKET: must not be empty"),
        ("s3://", "BUCKET: must not be empty"),
        ("/mnt/x", "BUCKET: '/mnt/x' is a path; the bucket comes first, then the mountpoint"),
        ("gs://models", "BUCKET: 'gs://models' is not a bucket name"),
        ("a b", "BUCKET: 'a b' is not a bucket name"),
        ("models/a/../b", "BUCKET: 'a/../b' is not a prefix: no empty, '.' or '..' segments"),
        ("models/a//b", "BUCKET: 'a//b' is not a prefix: no empty, '.' or '..' segments"),
    ],
)
def test_a_bad_bucket_argument_is_named(written: str, line: str) -> None:
    assert line in problems(bucket=written)


def test_a_prefix_given_twice_is_refused() -> None:
    assert problems(bucket="models/a", prefix="b") == ("--prefix: BUCKET already names a prefix",)


def test_missing_and_empty_arguments_are_told() -> None:
    with pytest.raises(BadOptionsError) as caught:
        load(CommandLine({}), {})
    assert caught.value.problems == ("BUCKET: missing argument", "MOUNTPOINT: missing argument")
    assert problems(mountpoint="") == ("MOUNTPOINT: must not be empty",)


def test_paths_become_absolute_because_the_daemon_leaves_the_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    found = settings(mountpoint="mnt", log_file="~/x.log")
    assert found.mountpoint == tmp_path / "mnt"
    assert found.log_file == Path("/home/somebody/x.log")


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("https://[::1]:8333", "https://[::1]:8333"),
    ],
)
def test_endpoints_get_a_scheme(written: str, url: str) -> None:
    assert settings(endpoint=written).endpoint == url


@pytest.mark.parametrize(
    "written", ["", "ftp://host", "http://", "http://host:port", "http://host:99999"]
)
def test_a_bad_endpoint_is_named(written: str) -> None:
    (line,) = problems(endpoint=written)
    assert line == f"--endpoint: {written!r} is not an http:// or https:// address"


@pytest.mark.parametrize(
    "written",
    ["https://user:hunter2@host", "https://u:hunter2/x@host", "https://host/?Signature=hunter2"],
)
def test_a_secret_inside_an_endpoint_is_refused_and_not_repeated(written: str) -> None:
    (line,) = problems(endpoint=written)
    assert "must" in line
    assert "hunter2" not in line


def test_users_may_be_named() -> None:
    assert settings(uid="root", gid="root").uid == 0
    assert settings(uid="1000").uid == 1000
    assert problems(uid="no-such-user") == (
        "--uid: 'no-such-user' is neither a number nor a user of this machine",
    )


# -- modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "file_mode", "dir_mode"),
    [
        ({}, 0o644, 0o755),
        ({"umask": "002"}, 0o664, 0o775),
        ({"file_mode": "664"}, 0o664, 0o755),
        ({"file_mode": "666", "dir_mode": "777", "umask": "077"}, 0o600, 0o700),
    ],
)
def test_modes_follow_the_umask(values: dict[str, str], file_mode: int, dir_mode: int) -> None:
    found = settings(**values)
    assert (found.effective_file_mode, found.effective_dir_mode) == (file_mode, dir_mode)


# -- sources ----------------------------------------------------------------------------------


def test_flags_beat_mount_options_beat_environment_beat_file_beat_defaults(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text(
        'concurrency = 3\nregion = "file"\nmetadata-ttl = "3s"\nprofile = "file"\n'
        "log_level = 'debug'\n"
    )
    environ = {
        "OSSFS_PY_CONCURRENCY": "2",
        "OSSFS_PY_REGION": "environment",
        "OSSFS_PY_METADATA_TTL": "2s",
    }
    found = loaded(
        "concurrency=1,region=option", environ=environ, config=config, concurrency="9"
    ).settings
    assert found.concurrency == 9
    assert found.region == "option"
    assert found.metadata_ttl_seconds == 2
    assert found.profile == "file"
    assert found.log_level == LogLevels("debug")
    assert found.block_size_bytes == 8 * 1024**2


def test_a_flag_turned_off_beats_a_file_that_turns_it_on(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text("read-only = true\n")
    assert loaded(config=config).settings.read_only
    assert not loaded(config=config, read_only=False).settings.read_only


def test_the_configuration_file_can_be_named_everywhere(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text("concurrency = 3\n")
    assert loaded(f"config={config}").settings.concurrency == 3
    assert loaded(environ={"OSSFS_PY_CONFIG": str(config)}).settings.concurrency == 3


def test_a_file_can_name_bucket_and_mountpoint(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text('bucket = "models/llm"\nmountpoint = "/mnt/llm"\n')
    found = load(CommandLine({}, (), str(config)), {}).settings
    assert (found.bucket, found.prefix, found.mountpoint) == ("models", "llm/", Path("/mnt/llm"))


def test_mount_options_take_dashes_and_underscores_alike() -> None:
    assert settings("cache-size=5G,data_path=cache").cache_size_bytes == 5 * 1024**3
    assert settings("data-path=cache", "cache_size=5G").cache_size_bytes == 5 * 1024**3


def test_the_last_of_equal_mount_options_counts() -> None:
    assert settings("concurrency=1,concurrency=2", "concurrency=3").concurrency == 3


def test_a_comma_in_a_mount_option_is_escaped() -> None:
    assert settings(r"prefix=a\,b,ro").prefix == "a,b/"


def test_names_that_only_mount_knows_are_accepted() -> None:
    found = settings(
        "defaults,rw,_netdev,nofail,noauto,user,exec,suid,dev,x-systemd.automount,noexec"
    )
    assert not found.read_only
    assert found.kernel_options == ("noexec",)


def test_ro_means_read_only() -> None:
    assert settings("ro").read_only
    assert not settings("ro,rw").read_only


def test_bare_flags_and_valueless_options_are_told_apart() -> None:
    assert settings("allow_other").allow_other
    assert not settings("allow_other=no").allow_other
    assert problems("cache_size") == ("-o cache_size: needs a value (-o cache_size=...)",)


# -- mistakes ---------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_in_the_users_words(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text('blocksize = 3\nstall-timeout = "soon"\n')
    found = problems(
        "cache-size=12Q,colour=red",
        environ={"OSSFS_PY_UMASK": "9"},
        config=config,
        data_path="disk",
        concurrency="0",
        anonymous=True,
        profile="p",
    )
    assert set(found) == {
        "-o colour: no such option",
        f"blocksize in {config}: no such setting (did you mean block_size?)",
        f"stall-timeout in {config}: 'soon' is not a duration; write it like 60s, 5m or 1h",
        "--data-path: 'disk' is none of temp, cache, direct",
        "-o cache_size: '12Q' is not a size; write it like 512M, 8GiB or 1.5G",
        "--concurrency: must be at least 1",
        "OSSFS_PY_UMASK: '9' is not a mode; write octal digits like 0644",
        "--anonymous and --profile: only one of them can be used",
    }


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"memory_limit_bytes": "1M"}, "--memory-limit: must be at least 64MiB"),
        ({"block_size_bytes": "128M"}, "--block-size: must be at most 64MiB"),
        ({"block_size_bytes": "3M"}, "--block-size: must be a power of two, like 4MiB or 8MiB"),
        ({"readahead_bytes": "4K"}, "--readahead: must be at least 128KiB"),
        ({"connect_timeout_seconds": "0"}, "--connect-timeout: must be more than 0s"),
        ({"umask": "1777"}, "--umask: must be at most 0777"),
        (
            {"memory_limit_bytes": "64M", "block_size_bytes": "32M"},
            "--memory-limit and --block-size: the memory limit must hold at least 4 blocks",
        ),
        (
            {"profile": "p", "credentials_file": "/x"},
            "--profile and --credentials-file: only one of them can be used",
        ),
        (
            {"addressing": "path", "endpoint": "oss-cn-beijing.aliyuncs.com"},
            "--addressing and --endpoint: OSS supports only virtual addressing",
        ),
        (
            {"addressing": "virtual", "endpoint": "http://127.0.0.1:1"},
            "--addressing and --endpoint: virtual addressing needs a host name, not an IP address",
        ),
        (
            {"sse_kms_key_id": "alias/own"},
            "--sse-kms-key-id: it is for --sse aws:kms, which is not given",
        ),
        (
            {"sse": "AES256", "sse_key_file": "/key", "endpoint": "https://store"},
            "--sse and --sse-key-file: an object can be encrypted in one way only",
        ),
        (
            {"sse_key_file": "/key", "endpoint": "http://store:9000"},
            (
                "--sse-key-file and --endpoint: the key would cross the network for everybody to "
                "read: use https"
            ),
        ),
        (
            {
                "sse_key_file": "/key",
                "endpoint": "https://store",
                "read_endpoint": "http://near:9000",
            },
            (
                "--sse-key-file and --read-endpoint: the key would cross the network for everybody "
                "to read: use https"
            ),
        ),
        (
            {"shared_cache_secret": "/secret"},
            "--shared-cache-secret: it is for --shared-cache, which is not given",
        ),
        (
            {"shared_cache": "a:1", "sse_key_file": "/key", "endpoint": "https://store"},
            (
                "--shared-cache and --sse-key-file: the nodes would hold decrypted bytes that "
                "others can read"
            ),
        ),
        (
            {"restarts": 3, "read_only": True, "fuse_lane": "off"},
            "--restarts and --fuse-lane: it needs the fast lane",
        ),
        (
            {"keeper": "/run/keeper", "read_only": True, "fuse_lane": "off"},
            "--keeper and --fuse-lane: it needs the fast lane",
        ),
        ({"shared_cache": "a:b"}, "--shared-cache: 'a:b' is not HOST:PORT"),
        ({"shared_cache": " , "}, "--shared-cache: must not be empty"),
        (
            {"shared_cache": "user@a:1"},
            "--shared-cache: must not carry a user name or password",
        ),
        ({"sse": "rot13"}, "--sse: 'rot13' is none of AES256, aws:kms, aws:kms:dsse"),
        (
            {"sse": "aws:kms", "sse_kms_key_id": "two words"},
            "--sse-kms-key-id: must be a key's id, alias or ARN",
        ),
        (
            {"acl": "everybody"},
            (
                "--acl: 'everybody' is none of keep, private, public-read, public-read-write, "
                "authenticated-read, bucket-owner-read, bucket-owner-full-control"
            ),
        ),
        (
            {"temp_dir": "/mnt/models/tmp"},
            "--temp-dir and MOUNTPOINT: it must be outside the mountpoint",
        ),
    ],
)
def test_impossible_values_and_combinations_are_refused(
    values: dict[str, object], line: str
) -> None:
    assert problems(**values) == (line,)


def test_a_broken_or_missing_configuration_file_is_told(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    assert problems(config=config) == (
        f"--config: cannot read {config}: No such file or directory",
    )
    config.write_text("secret = hunter2\n")
    (line,) = problems(config=config)
    assert line.startswith(f"--config: {config} is not TOML: ")
    assert "line 1" in line
    assert line.endswith("(strings stand in quotes)")
    assert "hunter2" not in line
    config.write_text('[mount]\nbucket = "models"\n')
    assert problems(config=config) == (f"[mount] in {config}: settings stand in no table",)


def test_bad_mount_options_are_told_in_the_order_in_which_they_were_written() -> None:
    assert problems("colour=red,cache_siz=3", "size") == (
        "-o colour: no such option",
        "-o cache_siz: no such option (did you mean cache_size?)",
        "-o size: no such option",
    )


def test_values_of_unknown_names_are_never_repeated(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text('secret_key = "hunter2"\n')
    found = problems("secret_key=hunter2", config=config)
    assert len(found) == 2
    assert "hunter2" not in "".join(found)


def test_modes_in_a_file_must_be_strings(tmp_path: Path) -> None:
    config = tmp_path / "mount.toml"
    config.write_text("file-mode = 644\n")
    (line,) = problems(config=config)
    assert line.endswith('write the mode as a string of octal digits, like "0644"')


def test_variables_that_kubernetes_makes_for_services_are_no_settings() -> None:
    services = {
        "OSSFS_PY_SERVICE_HOST": "10.0.0.1",
        "OSSFS_PY_SERVICE_PORT": "80",
        "OSSFS_PY_SERVICE_PORT_METRICS": "9797",
        "OSSFS_PY_PORT": "tcp://10.0.0.1:80",
        "OSSFS_PY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "OSSFS_PY_PORT_80_TCP_PROTO": "tcp",
        "OSSFS_PY_PORT_80_TCP_PORT": "80",
        "OSSFS_PY_PORT_80_TCP_ADDR": "10.0.0.1",
        "OSSFS_PY_MODELS_METRICS_SERVICE_HOST": "10.0.0.2",
        "OSSFS_PY_MODELS_METRICS_PORT_9797_TCP_ADDR": "10.0.0.2",
    }
    assert loaded(environ=services).warnings == ()
    # What a person may have written is warned of.
    assert len(loaded(environ={"OSSFS_PY_PORT": "9797"}).warnings) == 1


def test_defaults_of_the_surroundings_give_way_to_every_source(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text('bucket = "models"\nmountpoint = "/mnt/models"\n')
    defaults = {"mountpoint": "/mnt/bucket", "log_format": "json"}
    line = CommandLine({}, config_file=str(config), defaults=defaults)
    settings = load(line, {}).settings
    assert (str(settings.mountpoint), settings.log_format) == ("/mnt/models", "json")
    assert load(line, {"OSSFS_PY_LOG_FORMAT": "text"}).settings.log_format == "text"
    alone = CommandLine({"bucket": "b"}, defaults=defaults)
    assert str(load(alone, {}).settings.mountpoint) == "/mnt/bucket"


def test_settings_without_effect_are_warned_about() -> None:
    found = loaded(
        "cache_size=5G,trust_default_modes",
        environ={"OSSFS_PY_CASH_DIR": "/x"},
        endpoint="http://h:1",
    )
    assert found.warnings == (
        "OSSFS_PY_CASH_DIR: no such setting (did you mean cache_dir?)",
        "-o cache_size: has no effect without --data-path cache",
        "-o trust_default_modes: has no effect without --allow-other",
    )


def test_addresses_to_bind_to_are_written_with_commas_or_spaces() -> None:
    found = ("10.0.0.5", "2001:db8::5")
    assert settings(bind="10.0.0.5,2001:db8::5").bind == found
    assert settings("bind=10.0.0.5 2001:db8::5").bind == found
    assert settings(r"bind=10.0.0.5\,2001:db8::5,ro").bind == found
    assert settings().bind == ()
    (line,) = problems(bind="10.0.0.5,eth0")
    assert line == (
        "--bind: 'eth0' is not an IP address; write it like 10.0.0.5 or 10.0.0.5,10.0.1.5"
    )


def test_a_shared_cache_is_a_list_a_name_or_a_file() -> None:
    assert settings(shared_cache="a:1, b").shared_cache == "a:1,b"
    assert settings(shared_cache="nodes.local:11211").shared_cache == "nodes.local:11211"
    assert settings(shared_cache="file:/etc/nodes").shared_cache == "file:/etc/nodes"
    assert settings(shared_cache="file:nodes").shared_cache == f"file:{Path.cwd() / 'nodes'}"
    assert settings().shared_cache is None


def test_changes_to_protect_against_are_named_and_nothing_else_is_taken_for_one() -> None:
    assert settings(protect="delete,rename").protect == ("delete", "rename")
    assert settings(r"protect=delete\,overwrite,allow_other").protect == ("delete", "overwrite")
    assert settings("protect=delete rename delete").protect == ("delete", "rename")
    assert settings().protect == ()
    (line,) = problems(protect="delete,erase")
    assert line == "--protect: 'erase' is none of delete, overwrite, rename"
    assert problems(protect="") == ("--protect: must not be empty",)


def test_a_mount_of_the_past_is_read_only_and_its_time_has_been() -> None:
    day_ns = 24 * 3600 * 10**9
    moment = settings("at=2026-01-02T03:04:05Z")
    assert (moment.at_ns, moment.read_only) == (1_767_323_045 * 10**9, True)
    assert settings(at_ns="2026-01-02T03:04:05+02:00").at_ns == 1_767_315_845 * 10**9
    assert settings(at_ns="3d", read_only="no").read_only
    assert abs((settings(at_ns="3d").at_ns or 0) - (time.time_ns() - 3 * day_ns)) < day_ns
    assert (settings().at_ns, settings().read_only) == (None, False)
    for wrong in ("yesterday", "1767323045", "-3d", ""):
        (line,) = problems(at_ns=wrong)
        assert line.startswith(f"--at: {wrong!r} is not a time; write it like 2026-11-20T10:00Z")
    assert problems(at_ns="9999-01-01") == ("--at: '9999-01-01' is not a time in the past",)


def test_limits_are_bytes_a_second_with_a_lower_bound() -> None:
    found = settings("download_limit=100MB", upload_limit_bytes="1GiB")
    assert (found.download_limit_bytes, found.upload_limit_bytes) == (100 * 1024**2, 1024**3)
    assert (settings().download_limit_bytes, settings().upload_limit_bytes) == (None, None)
    assert problems(download_limit_bytes="1K") == ("--download-limit: must be at least 64KiB",)


# -- the machine ------------------------------------------------------------------------------


def test_the_default_memory_limit_is_within_bounds() -> None:
    assert 64 * 1024**2 <= default_memory_limit() <= 1024**3


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000"}, [1000]),
        ("0::/elsewhere\n", {"memory.max": "2000"}, [2000]),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "3000"}, [3000]),
        ("4:cpu:/a\n", {}, []),
    ],
)
def test_cgroup_limits_are_found(
    tmp_path: Path, membership: str, files: dict[str, str], limits: list[int]
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert list(cgroup_memory_limits(tmp_path)) == limits


def test_runtime_directories_do_not_depend_on_the_environment() -> None:
    assert runtime_dirs(0)[0] == Path("/run/ossfs-py")
    assert runtime_dirs(1000)[0] == Path("/run/user/1000/ossfs-py")


def test_every_option_has_a_group_a_placeholder_and_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        if name not in NOT_OPTIONS:
            assert field.group


def test_the_configuration_file_read_is_known_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mount.toml").touch()
    assert loaded("config=mount.toml").config_file == str(tmp_path / "mount.toml")
    assert loaded().config_file is None
