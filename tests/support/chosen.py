"""The store that the suites run on when the environment names one; SeaweedFS is the default.

``OSSFS_PY_TEST_ENDPOINT``, ``…_ACCESS_KEY`` and ``…_SECRET_KEY`` choose it. ``…_BUCKET`` names an
empty bucket for keys that may not make any: tests then run one after the other in it, and empty
it. ``…_SERVER`` is its name in ``tests/support/servers/deviations.py``, ``…_REGION`` its region.
Mounts never see these variables: tests start them without any that begins so.
"""

import contextlib
import io
import itertools
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import S3Error

from tests.support.seaweed import Account

PREFIX = "OSSFS_PY_TEST_"
DEFAULT_REGION = "us-east-1"
OWN = "own"
"""What a store is called that is in no list."""


def chosen_server() -> str:
    """Name of the chosen server in the list of deviations; empty: the embedded one."""
    if not os.environ.get(f"{PREFIX}ENDPOINT"):
        return ""
    return os.environ.get(f"{PREFIX}SERVER") or OWN


class WrongChoiceError(Exception):
    """The environment names a store that tests cannot run on: one sentence."""


class ChosenStore:
    """A store that runs already; offers the tests what the embedded server does.

    ``identities`` has the one account that is known: tests that need another are in the list of
    deviations.
    """

    def __init__(
        self, name: str, endpoint: str, account: Account, region: str, bucket: str | None
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.access_key, self.secret_key = account.access_key, account.secret_key
        self.identities = {"admin": account}
        self.region = region
        self.bucket = bucket
        parts = urlsplit(endpoint)
        self.host = parts.netloc
        self._run = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._pool = urllib3.PoolManager(maxsize=8, timeout=60)
        self.client = Minio(
            parts.netloc,
            self.access_key,
            self.secret_key,
            secure=parts.scheme == "https",
            region=region,
            http_client=self._pool,
        )
        if bucket and next(self.client.list_objects(bucket, recursive=True), None):
            raise WrongChoiceError(f"the bucket {bucket} is not empty, and tests would empty it")

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self | None:
        """The store that the environment names, if it does.

        Raises:
            WrongChoiceError
        """
        given = {
            name.removeprefix(PREFIX): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and value
        }
        if "ENDPOINT" not in given:
            return None
        if missing := [name for name in ("ACCESS_KEY", "SECRET_KEY") if name not in given]:
            raise WrongChoiceError(f"{PREFIX}ENDPOINT is set and {PREFIX}{missing[0]} is not")
        if given.get("BUCKET") and environ.get("PYTEST_XDIST_WORKER"):
            raise WrongChoiceError(f"with {PREFIX}BUCKET tests run one after the other (no -n)")
        account = Account("admin", (), given["ACCESS_KEY"], given["SECRET_KEY"])
        region = given.get("REGION", DEFAULT_REGION)
        name = given.get("SERVER", OWN)
        return cls(name, given["ENDPOINT"].rstrip("/"), account, region, given.get("BUCKET"))

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment to use the store."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def fresh_bucket(self) -> str:
        """An empty bucket: a new one, or the only one, emptied."""
        if self.bucket:
            self._empty(self.bucket)
            return self.bucket
        # Several test processes may share the store.
        name = f"ossfs-py-test-{self._run}-{next(self._numbers)}"
        self.make_bucket(name)
        return name

    def make_bucket(self, name: str) -> None:
        """Create a bucket; one that is there already is no error."""
        try:
            self.client.make_bucket(name)
        except S3Error as exc:
            if exc.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def remove_bucket(self, name: str) -> None:
        """Remove a bucket with all that is in it; the only one is emptied.

        Some servers list keys with control characters as bad XML: such a bucket stays.
        """
        with contextlib.suppress(S3Error, ParseError):
            self._empty(name)
            if name != self.bucket:
                self.client.remove_bucket(name)

    def put_file(self, bucket: str, key: str, path: Path) -> None:
        """Store one local file as an object, without going through any mount."""
        content = path.read_bytes()
        self.client.put_object(bucket, key, io.BytesIO(content), len(content))

    def close(self) -> None:
        """Empty the only bucket, and close the connections."""
        if self.bucket:
            self._empty(self.bucket)
        self._pool.clear()

    def _empty(self, name: str) -> None:
        keys = [str(one.object_name) for one in self.client.list_objects(name, recursive=True)]
        for key in keys:
            self.client.remove_object(name, key)
