"""Options of other programs are answered with what they are called here."""

import pytest

from ossfs_py.config import BadOptionsError, CommandLine, load, unknown_flag
from ossfs_py.config.foreign_names import FOREIGN_NAMES
from ossfs_py.config.mount_options import parse_mount_options
from ossfs_py.config.sources import FIELD_OF_NAME

BUCKET = {"bucket": "models", "mountpoint": "/mnt/models"}


def told(option: str) -> str:
    with pytest.raises(BadOptionsError) as caught:
        load(CommandLine(BUCKET, (option,)), {})
    (line,) = caught.value.problems
    return line


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (
            "url=http://oss-cn-hangzhou.aliyuncs.com",
            (
                "-o url: an option of ossfs and s3fs; here it is endpoint (what they call endpoint"
                " is region)"
            ),
        ),
        (
            "use_path_request_style",
            "-o use_path_request_style: an option of ossfs and s3fs; here it is addressing=path",
        ),
        (
            "use-cache=/tmp",
            "-o use_cache: an option of ossfs and s3fs; here it is data_path=cache,cache_dir=DIR",
        ),
        (
            "multipart_size=64",
            (
                "-o multipart_size: an option of ossfs and s3fs; not needed here: the size of parts"
                " follows from the object's"
            ),
        ),
        (
            "stat-cache-ttl=1m0s",
            "-o stat_cache_ttl: an option of goofys; here it is metadata_ttl",
        ),
    ],
)
def test_a_mount_option_of_another_program_is_answered_with_ours(option: str, line: str) -> None:
    assert told(option) == line


def test_long_flags_are_answered_with_long_flags() -> None:
    assert unknown_flag("--endpoint-url=http://h:1") == (
        "--endpoint-url: an option of mountpoint-s3; here it is --endpoint"
    )
    assert unknown_flag("--no_check_certificate") == (
        "--no_check_certificate: an option of ossfs, s3fs and rclone; here it is --no-verify-tls"
    )
    assert unknown_flag("--cache=/x") == (
        "--cache: an option of mountpoint-s3 and goofys; here it is --data-path=cache"
        " --cache-dir=DIR"
    )
    assert unknown_flag("--allow-delete").endswith("allowed here unless it is mounted read_only")


def test_a_secret_is_not_repeated() -> None:
    assert "s3cret" not in told("oss_access_key_secret=s3cret")


def test_what_another_program_calls_otherwise_is_warned_of_only_where_mount_says_so() -> None:
    found = load(CommandLine(BUCKET, ("url=http://h:1",), sloppy=True), {})
    assert found.warnings[0].startswith("-o url: an option of ossfs and s3fs")


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_the_table_has_names_that_are_not_ours_and_answers_that_are(name: str) -> None:
    known = FOREIGN_NAMES[name]
    assert name not in FIELD_OF_NAME
    assert parse_mount_options((name,)).own == [(name, None)], "it never comes to the table"
    assert known.here or known.note
    for option in filter(None, known.here.split(",")):
        field, equals, value = option.partition("=")
        assert field in FIELD_OF_NAME, option
        if equals and value != "DIR":
            load(CommandLine(BUCKET, (option,)), {})
