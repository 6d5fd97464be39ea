"""More that can be wrong around a mount command: files, directories, certificates, proxies.

As in ``test_bad_input``: one clear sentence, exit code 1 (2 for wrong usage), nothing left.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import as_ordinary_user, open_fuse_device, tmpfs
from tests.support.mount_command import Place, answering, credentials, hand_over
from tests.support.seaweed import SeaweedServer


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Place:
    return Place(tmp_path, seaweed.endpoint, bucket, seaweed.environment)


# -- who asks -----------------------------------------------------------------------------------


def test_nobody_at_a_private_bucket(place: Place) -> None:
    place.keys = {}
    sentence = place.refused("--anonymous")
    assert sentence.startswith(f"access to the bucket '{place.bucket}' is denied")


def test_a_profile_that_does_not_exist(place: Place) -> None:
    place.keys = {}
    assert place.refused("--profile", "nobodys-profile") == (
        "the profile 'nobodys-profile' is not in the AWS configuration"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# nothing but a comment\n", "has no entry for the bucket"),
        (":secret-of-nobody\n", "is neither id:secret nor bucket:id:secret"),
        ("\0\x7f:secret-of-nobody\n", "have a line break or another character in them"),
    ],
)
def test_a_credentials_file_without_usable_keys(place: Place, text: str, problem: str) -> None:
    path = credentials(place, text, 0o600)
    sentence = place.refused("--credentials-file", str(path))
    assert str(path) in sentence
    assert problem in sentence
    assert "secret-of-nobody" not in sentence


def test_a_key_with_a_line_break_at_its_end(place: Place) -> None:
    place.keys["AWS_SECRET_ACCESS_KEY"] += "\n"
    sentence = place.refused()
    assert "have a line break or another character" in sentence
    assert place.keys["AWS_SECRET_ACCESS_KEY"].strip() not in sentence


# -- how it is reached --------------------------------------------------------------------------


def test_https_where_http_is_spoken(place: Place) -> None:
    place.flags["--endpoint"] = place.endpoint.replace("http://", "https://")
    assert "if it speaks http only, write http://" in place.refused()


def test_a_certificate_file_that_holds_no_certificate(place: Place) -> None:
    place.flags["--endpoint"] = place.endpoint.replace("http://", "https://")
    path = place.root / "ca.pem"
    path.write_text("no certificate")
    assert place.refused("--ca-bundle", str(path)) == (
        f"the CA bundle {path} cannot be read or holds no certificate"
    )


def test_a_proxy_where_nobody_listens(place: Place) -> None:
    place.flags["--endpoint"] = "http://store.invalid"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{free.getsockname()[1]}"
        place.keys["http_proxy"] = f"http://{proxy}"
        assert place.refused() == (f"cannot reach the store: the proxy {proxy} refuses connections")


@pytest.mark.parametrize(("scheme", "to"), [("http", ""), ("https", " to CONNECT")])
def test_a_proxy_that_blocks_everything(place: Place, scheme: str, to: str) -> None:
    place.flags["--endpoint"] = f"{scheme}://store.invalid"
    page = b"<html>This site is blocked.</html>"
    head = b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n" % len(page)
    with greeting(head + page) as proxy:
        place.keys[f"{scheme}_proxy"] = proxy
        address = proxy.removeprefix("http://")
        assert place.refused() == (f"cannot reach the store: the proxy {address} answered 403{to}")


def test_a_service_that_is_no_web_server(place: Place) -> None:
    with greeting(b"SSH-2.0-OpenSSH_9.2p1\r\n") as place.flags["--endpoint"]:
        assert "is not an S3 server: what answers does not speak HTTP" in place.refused()


def test_a_bucket_of_another_region(place: Place) -> None:
    body = (
        "<Error><Code>PermanentRedirect</Code><Message>use the other</Message>"
        "<Endpoint>bucket.s3.eu-west-3.amazonaws.com</Endpoint></Error>"
    )
    with answering(301, body) as place.flags["--endpoint"]:
        sentence = place.refused()
    assert sentence.startswith(f"the bucket '{place.bucket}' is behind another endpoint")
    assert "give its region and endpoint" in sentence


# -- local directories and files ----------------------------------------------------------------


def test_a_state_directory_that_is_open_to_others(place: Place) -> None:
    loose = place.root / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    place.flags["--state-dir"] = str(loose)
    assert place.refused() == (
        f"--state-dir: others can write to {loose}; close it with chmod go-w"
    )


def test_a_state_directory_that_is_full(place: Place) -> None:
    with tmpfs(place.root / "small", "size=64k") as small:
        place.flags["--state-dir"] = str(small)
        assert place.refused() == f"--state-dir: {small} is full"
        assert list(small.iterdir()) == []


def test_a_configuration_file_with_mistakes(place: Place) -> None:
    path = place.root / "mount.toml"
    assert place.refused("--config", str(path), code=2) == (
        f"--config: cannot read {path}: No such file or directory"
    )
    path.write_text("cache-size = '12Q'\n")
    assert place.refused("--config", str(path), code=2) == (
        f"cache-size in {path}: '12Q' is not a size; write it like 512M, 8GiB or 1.5G"
    )


# -- the mountpoint -----------------------------------------------------------------------------


def test_a_mountpoint_behind_a_loop_of_links(place: Place) -> None:
    place.mountpoint = place.root / "loop"
    place.mountpoint.symlink_to("loop")
    sentence = place.refused()
    assert sentence.startswith(f"the mountpoint {place.mountpoint} cannot be used: ")
    assert "symbolic links" in sentence


def test_a_mountpoint_an_ordinary_user_cannot_write_to(place: Place) -> None:
    hand_over(place)
    place.mountpoint.chmod(0o555)
    with open_fuse_device():
        sentence = place.refused(wrapper=as_ordinary_user() if os.geteuid() == 0 else ())
    assert sentence.startswith(f"the mountpoint {place.mountpoint} is not writable for this user")


@contextlib.contextmanager
def greeting(words: bytes) -> Iterator[str]:
    """A service that says something and hangs up; yields the URL that somebody took it for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
