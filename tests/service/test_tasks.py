"""What a new user wants, done with the lines of the guide: a service whose keys rotate."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.service.booted import Booted
from tests.support.proxy import Proxy
from tests.support.seaweed import OUTSIDER, OUTSIDER_BUCKET, Account, SeaweedServer

GUIDE = (Path(__file__).parents[2] / "ossfs_py/docs/operations.md").read_text()
UNIT = "ossfs-py@models"


def block(containing: str) -> str:
    """The block of the guide that has these words."""
    (found,) = (
        text
        for text in re.findall(r"```\w+[^\n]*\n(.*?)```", GUIDE, re.DOTALL)
        if containing in text
    )
    return found


class User:
    """Types lines at the machine's prompt."""

    def __init__(self, machine: Booted) -> None:
        self._machine = machine

    def type(self, lines: str, **variables: str) -> str:
        words = [f"{name}={value}" for name, value in variables.items()]
        return self._machine.run("env", *words, "sh", "-euc", lines).stdout


@pytest.fixture
def user(machine: Booted) -> Iterator[User]:
    yield User(machine)
    machine.run("systemctl", "disable", "--now", UNIT, check=False)
    machine.run("sh", "-c", "rm -rf /etc/ossfs-py/models.* /var/lib/ossfs-py; rmdir /mnt/models")


@pytest.fixture
def keys(seaweed: SeaweedServer, minio_client: Minio) -> tuple[Account, Account]:
    """The old key and the new one, for one bucket with one file."""
    for left in minio_client.list_objects(OUTSIDER_BUCKET, recursive=True):
        minio_client.remove_object(OUTSIDER_BUCKET, str(left.object_name))
    minio_client.put_object(OUTSIDER_BUCKET, "config.json", io.BytesIO(b"{}\n"), 3)
    return seaweed.identities["admin"], seaweed.identities[OUTSIDER]


def test_a_service_is_set_up_and_its_keys_are_rotated(
    user: User, store: Proxy, keys: tuple[Account, Account]
) -> None:
    old, new = keys
    settings = block('mountpoint = "/mnt/models"').replace('"models"', f'"{OUTSIDER_BUCKET}"', 1)
    settings = settings.replace("oss-cn-hangzhou.aliyuncs.com", store.endpoint)
    user.type('printf %s "$SETTINGS" >/etc/ossfs-py/models.toml', SETTINGS=settings)
    user.type(block("mkdir -p /mnt/models"), KEY_ID=old.access_key, SECRET=old.secret_key)
    said = user.type(block("systemctl enable --now"))
    assert f"Serving {OUTSIDER_BUCKET} at /mnt/models" in said
    assert user.type("cat /mnt/models/config.json") == "{}\n"

    user.type(block("models.new"), NEW_KEY_ID=new.access_key, NEW_SECRET=new.secret_key)
    store.revoked.add(old.access_key)
    user.type("ossfs-py refresh /mnt/models")
    assert user.type("ls /mnt/models; cat /mnt/models/config.json") == "config.json\n{}\n"
    told = user.type(f"journalctl -o cat -u {UNIT}")
    assert "the credentials have changed and were read again" in told.replace("\n", " ")
    assert user.type(f"systemctl is-active {UNIT}") == "active\n"
    # allow-other: a service of root's is for everybody.
    assert user.type("setpriv --reuid=65534 --clear-groups cat /mnt/models/config.json") == "{}\n"
