"""The recipe for mirrors between two stores: systemd/examples/mirror, run between two of them."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.seaweed import SeaweedServer
from tests.support.servers import moto

EXAMPLES = Path(__file__).parents[2] / "systemd" / "examples"
REMOTE = """[{name}]
type = s3
provider = Other
endpoint = {endpoint}
access_key_id = {key}
secret_access_key = {secret}
force_path_style = true
no_check_bucket = true
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[tuple[Minio, str]]:
    """The store to mirror from."""
    (tmp_path / "moto").mkdir()
    with moto.run(tmp_path / "moto") as started:
        keys = (started.access_key, started.secret_key)
        client = Minio(started.endpoint.removeprefix("http://"), *keys, secure=False)
        client.make_bucket("models")
        yield (
            client,
            REMOTE.format(name="cloud", endpoint=started.endpoint, key=keys[0], secret=keys[1]),
        )


def put(client: Minio, bucket: str, key: str, content: bytes) -> None:
    client.put_object(bucket, key, io.BytesIO(content), len(content))


def there(client: Minio, bucket: str, prefix: str) -> dict[str, bytes]:
    return {
        str(item.object_name)[len(prefix) :]: client.get_object(
            bucket, str(item.object_name)
        ).read()
        for item in client.list_objects(bucket, prefix, recursive=True)
    }


def test_a_mirror_is_marked_when_it_is_whole_and_warms_its_mount_up(
    cloud: tuple[Minio, str],
    seaweed: SeaweedServer,
    minio_client: Minio,
    bucket: str,
    mount: MountFactory,
    tmp_path: Path,
) -> None:
    client, remote = cloud
    model = {"a.safetensors": os.urandom(3_000_000), "sub/config.json": b"{}"}
    for name, content in model.items():
        put(client, "models", f"llama/{name}", content)
    put(minio_client, bucket, "llama/left-over", b"gone at the source")
    (tmp_path / "rclone.conf").write_text(
        remote
        + REMOTE.format(
            name="local",
            endpoint=seaweed.endpoint,
            key=seaweed.access_key,
            secret=seaweed.secret_key,
        )
    )
    mounted = mount(bucket, data_path="cache", metadata_ttl="1h")
    conf = tmp_path / "mirror.conf"
    conf.write_text(
        f"SOURCE=cloud:models/llama\nTARGET=local:{bucket}/llama\nWARM={mounted.path}/llama\n"
    )

    def run() -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "RCLONE_CONFIG": str(tmp_path / "rclone.conf"),
        }
        return subprocess.run(
            ["bash", EXAMPLES / "mirror", conf],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    found = there(minio_client, bucket, "llama/")
    marked = found.pop(".complete")
    assert found == model
    assert (mounted.path / "llama/a.safetensors").read_bytes() == model["a.safetensors"]
    check = ossfs("warmup", "--check", mounted.path / "llama", environment={})
    assert check.code == 0, check.out

    assert "is complete already" in run().stdout
    assert there(minio_client, bucket, "llama/")[".complete"] == marked

    # A source that cannot be read leaves no marker.
    put(client, "models", "llama/new", b"new")
    conf.write_text(conf.read_text().replace("cloud:models", "cloud:nothing"))
    assert run().returncode != 0
    assert ".complete" not in there(minio_client, bucket, "llama/")


def test_the_units_call_the_script_by_where_it_is_installed() -> None:
    install = (EXAMPLES.parent / "install").read_text()
    for name in ("mirror", "ossfs-py-mirror@.service", "ossfs-py-mirror@.timer"):
        assert f"examples/{name}" in install
    service = (EXAMPLES / "ossfs-py-mirror@.service").read_text()
    assert "/usr/local/share/doc/ossfs-py/mirror " in service
