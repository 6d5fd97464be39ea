"""Killing a daemon, ``ossfs-py recover``, and what the store holds then."""

import json
import signal
from pathlib import Path

from minio import Minio

from tests.support.commands import Outcome, ossfs
from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer


def stored(client: Minio, bucket: str, key: str) -> bytes:
    answer = client.get_object(bucket, key)
    try:
        return bytes(answer.read())
    finally:
        answer.close()
        answer.release_conn()


def names(client: Minio, bucket: str) -> list[str]:
    return sorted(str(item.object_name) for item in client.list_objects(bucket, recursive=True))


class Recovering:
    """``ossfs-py recover`` over the state directory of one mount."""

    def __init__(self, mounted: Mount, server: SeaweedServer) -> None:
        self._state_dir = mounted.state_dir
        self._environment = server.environment

    def __call__(self, *arguments: str | Path) -> Outcome:
        return ossfs(
            *("recover", "--state-dir", self._state_dir, *arguments),
            environment=self._environment,
        )

    def list(self) -> list[dict[str, object]]:
        outcome = self("--list", "--json")
        assert outcome.code == 0, outcome
        return list(json.loads(outcome.out))


def kill(mounted: Mount) -> None:
    """SIGKILL: the daemon has no chance to save anything."""
    mounted.terminate(signal.SIGKILL)
    mounted.close()
