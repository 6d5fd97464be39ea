"""Keys that are rotated while bytes stream, the old ones revoked: no program sees an error."""

import hashlib
import io
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import Mount, wait_for_log
from tests.support.proxy import Proxy, Shape, access_key_of
from tests.support.seaweed import OUTSIDER, OUTSIDER_BUCKET, Account, SeaweedServer

MIB = 1024**2
STREAM_BYTES = 256 * MIB
STEP_BYTES = 4 * MIB
ROTATE_EVERY = 64 * MIB
POLL_SECONDS = 0.05


def put(path: Path, text: str) -> Path:
    """Replace a file as careful programs do."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.rename(path)
    return path


class Keys:
    """Two identities that take turns; whose turn is over is revoked."""

    def __init__(self, proxy: Proxy, identities: list[Account]) -> None:
        self._proxy = proxy
        self._identities = identities

    @property
    def current(self) -> Account:
        return self._identities[0]

    def rotate(self) -> Account:
        """The next one's turn begins, and every other one's ends, at the store."""
        self._identities.append(self._identities.pop(0))
        self._proxy.revoked = {one.access_key for one in self._identities[1:]}
        return self.current

    def used(self) -> set[str]:
        with_answers = [one for one in self._proxy.exchanges if one.status < 300]
        return {access_key_of(one) for one in with_answers}


@pytest.fixture
def keys(proxy: Proxy, seaweed: SeaweedServer) -> Keys:
    return Keys(proxy, [seaweed.identities["admin"], seaweed.identities[OUTSIDER]])


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("content") / "model"
    path.write_bytes(random.Random(7).randbytes(MIB) * (STREAM_BYTES // MIB))
    return path


@pytest.fixture
def stored(seaweed: SeaweedServer, content: Path, request: pytest.FixtureRequest) -> str:
    """Name of an object of 256 MiB in the bucket that both identities may use."""
    name = f"{request.node.name}.bin"
    seaweed.put_file(OUTSIDER_BUCKET, name, content)
    return name


def password_line(identity: Account) -> str:
    return f"{identity.access_key}:{identity.secret_key}\n"


def process_answer(identity: Account) -> str:
    return json.dumps(
        {
            "Version": 1,
            "AccessKeyId": identity.access_key,
            "SecretAccessKey": identity.secret_key,
        }
    )


def digest_while_rotating(path: Path, rotate: Iterator[None]) -> str:
    """SHA-256 of a file that is read in order; every 64 MiB the key changes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(STEP_BYTES):
            digest.update(piece)
            if file.tell() % ROTATE_EVERY == 0:
                next(rotate)
    return digest.hexdigest()


def test_keys_in_a_file_rotate_and_are_revoked_while_a_model_streams(
    mount: MountFactory, proxy: Proxy, keys: Keys, stored: str, content: Path, tmp_path: Path
) -> None:
    passwords = put(tmp_path / "passwd", password_line(keys.current))
    # So slow that requests are on their way whenever the key changes.
    proxy.shape = Shape(ttfb_seconds=0.02)
    mounted = mount(
        OUTSIDER_BUCKET,
        data_path="direct",
        endpoint=proxy.endpoint,
        credentials_file=passwords,
        memory_limit="64M",
    )

    def rotate() -> Iterator[None]:
        while True:
            put(passwords, password_line(keys.rotate()))
            yield

    with content.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    assert digest_while_rotating(mounted.path / stored, rotate()) == expected
    assert len(keys.used()) == 2
    refused = [one for one in proxy.exchanges if one.status == 403]
    assert refused, "nothing was ever refused: the test tests nothing"
    assert "ERROR" not in mounted.log


def test_a_credential_process_hands_out_the_next_key_when_the_last_one_is_revoked(
    proxy: Proxy, keys: Keys, tmp_path: Path, minio_client: Minio
) -> None:
    answer = put(tmp_path / "answer", process_answer(keys.current))
    config = tmp_path / "config"
    config.write_text(f"[profile rotating]\ncredential_process = cat {answer}\n")
    piece, name = os.urandom(MIB), "written-while-rotating"
    with Mount(
        OUTSIDER_BUCKET,
        tmp_path / "mount",
        endpoint=proxy.endpoint,
        environment={"AWS_CONFIG_FILE": str(config)},
        data_path="direct",
        profile="rotating",
        region="us-east-1",
    ) as mounted:
        with (mounted.path / name).open("wb", buffering=0) as file:
            for number in range(48):
                assert file.write(piece) == MIB
                if number == 24:
                    put(answer, process_answer(keys.rotate()))
        assert mounted.unmount() == 0
    assert len(keys.used()) == 2
    stored = minio_client.get_object(OUTSIDER_BUCKET, name)
    assert stored.read() == piece * 48
    stored.close()
    stored.release_conn()
    assert "ERROR" not in mounted.log


def test_sighup_takes_the_new_key_and_keeps_the_old_one_when_the_file_is_broken(
    mount: MountFactory, proxy: Proxy, keys: Keys, tmp_path: Path
) -> None:
    passwords = put(tmp_path / "passwd", password_line(keys.current))
    mounted = mount(OUTSIDER_BUCKET, endpoint=proxy.endpoint, credentials_file=passwords)
    put(passwords, "half-a-li")
    os.kill(mounted.pid, signal.SIGHUP)
    wait_for_log(mounted, "the credentials stay as they are: line 1 of the credentials file")
    (mounted.path / "old-key").write_text("x")
    put(passwords, password_line(keys.rotate()))
    os.kill(mounted.pid, signal.SIGHUP)
    wait_for_log(mounted, "credentials and log level were read again")
    proxy.reset()
    (mounted.path / "new-key").write_text("x")
    assert {access_key_of(one) for one in proxy.exchanges} == {keys.current.access_key}
    assert {one.status for one in proxy.exchanges} <= {200, 404}


def test_the_first_request_with_a_revoked_key_may_be_one_without_a_body_to_say_so(
    mount: MountFactory, proxy: Proxy, keys: Keys, tmp_path: Path, minio_client: Minio
) -> None:
    minio_client.put_object(OUTSIDER_BUCKET, "looked-at", io.BytesIO(b"12345"), 5)
    passwords = put(tmp_path / "passwd", password_line(keys.current))
    mounted = mount(OUTSIDER_BUCKET, endpoint=proxy.endpoint, credentials_file=passwords)
    put(passwords, password_line(keys.rotate()))
    proxy.reset()
    assert (mounted.path / "looked-at").stat().st_size == 5
    assert proxy.counts()["HeadObject"] >= 1
    assert {one.status for one in proxy.exchanges if one.operation == "HeadObject"} <= {200, 403}
