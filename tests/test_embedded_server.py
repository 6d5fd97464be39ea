"""The embedded S3 server: what everything else in these tests stands on."""

import io
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from ossfs_py.demo import server as embedded
from tests.support.seaweed import OUTSIDER, REGION, SeaweedServer

CHILD = """
import sys, time
from ossfs_py.demo.server import SeaweedServer
with SeaweedServer() as server:
    print(server.pid, server.directory, flush=True)
    sys.stdin.read()
"""


def test_a_stored_object_is_read_back_by_an_independent_client(
    minio_client: Minio, bucket: str
) -> None:
    minio_client.put_object(bucket, "some/key", io.BytesIO(b"content"), 7)
    with minio_client.get_object(bucket, "some/key") as answer:
        assert answer.read() == b"content"


def test_put_file_stores_an_object_under_any_name(
    seaweed: SeaweedServer, minio_client: Minio, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100_000)
    seaweed.put_file(bucket, "dir with space/ü+&.bin", source)
    assert minio_client.stat_object(bucket, "dir with space/ü+&.bin").size == 100_000


def test_an_identity_without_rights_is_refused(seaweed: SeaweedServer, bucket: str) -> None:
    outsider = seaweed.identities[OUTSIDER]
    client = Minio(
        seaweed.host, outsider.access_key, outsider.secret_key, secure=False, region=REGION
    )
    with pytest.raises(S3Error) as refused:
        list(client.list_objects(bucket))
    assert refused.value.code == "AccessDenied"
    client._http.clear()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_however_the_owner_ends(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        watch = os.pidfd_open(int(pid))
        owner.send_signal(how)
        owner.wait()
        # The server's guardian is the last to hold the directory; it is gone once rm has run.
        _wait_for_exit(watch)
    _wait_until_gone(Path(directory))


def test_a_server_that_dies_is_started_again_with_what_it_held(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with SeaweedServer() as server:
        server.make_bucket("bucket")
        server.put_file("bucket", "key", source)
        assert not server.crash
        first = server.pid
        os.kill(first, signal.SIGABRT)
        client = Minio(
            server.host, server.access_key, server.secret_key, secure=False, region=REGION
        )
        # The client asks again by itself while nobody listens.
        with client.get_object("bucket", "key") as answer:
            assert answer.read() == b"content"
        client._http.clear()
        assert server.pid != first
        assert "SIGABRT" in server.crash, "why it ended is kept"
        watch, directory = os.pidfd_open(server.pid), server.directory
    _wait_for_exit(watch)
    _wait_until_gone(directory)


def _wait_for_exit(pidfd: int) -> None:
    ready, _, _ = select.select([pidfd], [], [], 30)
    os.close(pidfd)
    assert ready, "the server outlived its owner"


def _wait_until_gone(path: Path) -> None:
    deadline = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < deadline, f"{path} was left behind"
        time.sleep(0.01)


def test_a_port_taken_meanwhile_costs_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = embedded._free_ports
        answers = iter([[*chosen(9), taken.getsockname()[1]]])
        monkeypatch.setattr(
            embedded, "_free_ports", lambda count: next(answers, None) or chosen(count)
        )
        with SeaweedServer() as server:
            server.make_bucket("bucket")
