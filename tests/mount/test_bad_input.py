"""Everything that can be wrong with a mount command: one clear sentence, the exit code (2 wrong
usage, 1 the environment), nothing mounted and nothing left behind."""

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.commands import (
    open_fuse_device,
    ossfs,
    tmpfs,
    with_another_device,
    without_fuse_device,
    without_fusermount,
    without_permissions,
)
from tests.support.mount_command import Place, answering, credentials, hand_over
from tests.support.seaweed import OUTSIDER, SeaweedServer

TOLD_WITHIN_SECONDS = 60.0
"""Less than the retry budget, which would be used up if the endpoint were asked again and again."""


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Place:
    return Place(tmp_path, seaweed.endpoint, bucket, seaweed.environment)


# -- wrong usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--cash-size=5G",), "--cash-size: no such option (did you mean --cache-size?)"),
        (("-o", "colour=red"), "-o colour: no such option"),
        (
            ("--cache-size", "12Q"),
            "--cache-size: '12Q' is not a size; write it like 512M, 8GiB or 1.5G",
        ),
        (
            ("--anonymous", "--profile", "p"),
            "--anonymous and --profile: only one of them can be used",
        ),
        (("--data-path", "disk"), "--data-path: 'disk' is none of temp, cache, direct"),
    ],
)
def test_wrong_options(place: Place, more: Sequence[str], sentence: str) -> None:
    assert place.refused(*more, code=2) == sentence


def test_a_missing_or_empty_mountpoint_argument(place: Place) -> None:
    for arguments, problem in ((("x",), "missing argument"), (("x", ""), "must not be empty")):
        outcome = ossfs("mount", *arguments, environment=place.keys)
        assert outcome.code == 2
        assert outcome.sentence == f"MOUNTPOINT: {problem}"


# -- the mountpoint ---------------------------------------------------------------------------


def test_a_mountpoint_that_is_missing(place: Place) -> None:
    place.mountpoint.rmdir()
    assert place.refused() == (
        f"the mountpoint {place.mountpoint} does not exist: create the directory first"
    )


def test_a_mountpoint_that_is_a_file(place: Place) -> None:
    place.mountpoint.rmdir()
    place.mountpoint.touch()
    assert place.refused() == f"the mountpoint {place.mountpoint} is not a directory"


def test_a_mountpoint_that_is_not_empty(place: Place) -> None:
    (place.mountpoint / "precious").touch()
    assert place.refused() == (
        f"the mountpoint {place.mountpoint} is not empty:"
        " mount elsewhere, or over it with --nonempty"
    )
    assert (place.mountpoint / "precious").exists()


def test_a_mountpoint_that_is_busy(place: Place) -> None:
    place.mountpoint.rmdir()
    with tmpfs(place.mountpoint, "size=64k"):
        assert place.refused("--nonempty") == (
            f"the mountpoint {place.mountpoint} is busy: tmpfs is mounted there (tmpfs)"
        )


# -- the store --------------------------------------------------------------------------------


def test_an_endpoint_where_nobody_listens(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place.flags["--endpoint"] = f"http://127.0.0.1:{free.getsockname()[1]}"
        sentence = place.refused()
    assert "refuses connections" in sentence
    assert place.flags["--endpoint"].removeprefix("http://") in sentence


def test_an_endpoint_that_never_answers(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place.flags["--endpoint"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        sentence = place.refused()
        assert time.monotonic() - began < TOLD_WITHIN_SECONDS
    assert "answer" in sentence


def test_an_endpoint_name_that_does_not_exist(place: Place) -> None:
    place.flags["--endpoint"] = "http://no-such-host.invalid"
    assert "no-such-host.invalid" in place.refused()


def test_a_wrong_region(place: Place) -> None:
    with answering(
        400,
        "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is"
        " malformed; the region 'us-east-1' is wrong; expecting 'eu-west-3'</Message>"
        "<Region>eu-west-3</Region></Error>",
    ) as place.flags["--endpoint"]:
        sentence = place.refused("--region", "us-east-1")
    assert "region" in sentence
    assert "eu-west-3" in sentence


def test_an_answer_that_is_no_store(place: Place) -> None:
    with answering(200, "<html><body>It works!</body></html>") as place.flags["--endpoint"]:
        assert "S3" in place.refused()


def test_an_unknown_key_id(place: Place) -> None:
    place.keys["AWS_ACCESS_KEY_ID"] = "AKNOBODYKNOWSTHISONE"
    assert "key" in place.refused()


def test_a_wrong_secret(place: Place) -> None:
    place.keys["AWS_SECRET_ACCESS_KEY"] = "not-the-secret-of-this-key-id-at-all"
    sentence = place.refused()
    assert "secret" in sentence
    assert place.keys["AWS_SECRET_ACCESS_KEY"] not in sentence


def test_no_credentials_at_all(place: Place) -> None:
    place.keys = {}
    assert "credentials" in place.refused()


def test_a_missing_bucket(place: Place) -> None:
    place.bucket = "no-such-bucket"
    assert "no-such-bucket" in place.refused()


def test_a_forbidden_bucket(place: Place, seaweed: SeaweedServer) -> None:
    outsider = seaweed.identities[OUTSIDER]
    place.keys["AWS_ACCESS_KEY_ID"] = outsider.access_key
    place.keys["AWS_SECRET_ACCESS_KEY"] = outsider.secret_key
    sentence = place.refused()
    assert place.bucket in sentence
    assert outsider.secret_key not in sentence


# -- credentials file -------------------------------------------------------------------------


def test_a_credentials_file_that_others_can_read(place: Place) -> None:
    path = credentials(place, "id:very-secret-value\n", 0o644)
    sentence = place.refused("--credentials-file", str(path))
    assert str(path) in sentence
    assert "very-secret-value" not in sentence


def test_a_credentials_file_with_a_broken_line(place: Place) -> None:
    path = credentials(place, "# comment\n\nvery-secret-value\n", 0o600)
    sentence = place.refused("--credentials-file", str(path))
    assert str(path) in sentence
    assert "line 3" in sentence
    assert "very-secret-value" not in sentence


def test_a_credentials_file_that_is_missing(place: Place) -> None:
    path = place.root / "keys"
    assert str(path) in place.refused("--credentials-file", str(path))


# -- local directories ------------------------------------------------------------------------


def test_a_temporary_directory_that_is_missing(place: Place) -> None:
    place.flags["--temp-dir"] = f"{place.root}/typo"
    assert place.refused() == f"--temp-dir: {place.root}/typo does not exist"


def test_a_cache_directory_that_is_missing(place: Place) -> None:
    cache = f"{place.root}/typo/cache"
    assert place.refused("--data-path", "cache", "--cache-dir", cache) == (
        f"--cache-dir: neither {cache} nor its parent directory exists"
    )


def test_a_temporary_directory_that_is_full(place: Place) -> None:
    with tmpfs(place.root / "small", "size=64k") as small:
        place.flags["--temp-dir"] = str(small)
        assert place.refused() == f"--temp-dir: {small} is full"
        assert list(small.iterdir()) == []


def test_local_directories_that_cannot_be_written(place: Place) -> None:
    with tmpfs(place.root / "frozen", "ro") as frozen:
        flags = ("--data-path", "cache", "--cache-dir", str(frozen))
        assert place.refused(*flags) == (
            f"--cache-dir: {frozen} is not writable: Read-only file system"
        )
        place.flags["--temp-dir"] = str(frozen)
        assert place.refused() == f"--temp-dir: {frozen} is not writable: Read-only file system"


def test_a_log_file_that_cannot_be_written(place: Place) -> None:
    place.flags["--log-file"] = f"{place.root}/typo/log"
    assert place.refused() == (
        f"cannot write the log file {place.root}/typo/log: No such file or directory"
    )


# -- the machine ------------------------------------------------------------------------------


def test_a_machine_without_the_fuse_device(place: Place) -> None:
    sentence = place.refused(wrapper=without_fuse_device())
    assert sentence.startswith("/dev/fuse is missing: load the kernel module")


def test_a_mount_that_the_kernel_refuses(place: Place) -> None:
    sentence = place.refused(wrapper=with_another_device())
    assert sentence.startswith(
        f"the kernel did not accept the mount at {place.mountpoint} (Invalid argument):"
        " is /dev/fuse the FUSE device (modprobe fuse), and may this user mount?"
    )
    assert "--device /dev/fuse --cap-add SYS_ADMIN" in sentence


def test_a_machine_without_fusermount3(place: Place) -> None:
    hand_over(place)
    with open_fuse_device():
        sentence = place.refused(wrapper=without_fusermount())
    assert sentence == (
        "fusermount3 is missing, which users other than root need to mount:"
        " install the package fuse3"
    )


def test_a_user_without_permission_for_allow_other(place: Place) -> None:
    hand_over(place)
    with open_fuse_device():
        sentence = place.refused("--allow-other", wrapper=without_permissions())
    assert sentence == (
        "--allow-other is not permitted: only root may use it unless /etc/fuse.conf has a line"
        " user_allow_other"
    )
