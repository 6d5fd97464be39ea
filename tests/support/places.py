"""A file on a mount and the object behind it, each by its own way."""

import contextlib
import io
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minio import Minio
from minio.error import S3Error

MIB = 1024**2
_PATTERN = random.Random(7).randbytes(MIB + 1)


def content_of(size: int, seed: int) -> bytes:
    """Bytes of which no two blocks are alike; ``seed`` makes them another file's."""
    shifted = _PATTERN[seed % 1000 :] + _PATTERN[: seed % 1000]
    return (shifted * (size // len(shifted) + 1))[:size]


@dataclass
class Place:
    """One file name on a mount, and the other way to what the store holds of it."""

    mount: Path
    client: Minio
    bucket: str
    name: str
    rng: random.Random
    content: bytes = b""
    fds: list[int] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.mount / self.name

    def put(self, name: str, content: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Store an object without the mount."""
        self.client.put_object(
            self.bucket,
            name,
            io.BytesIO(content),
            len(content),
            metadata={**metadata} if metadata else None,  # type: ignore[arg-type]
        )

    def stored(self, name: str) -> bytes | None:
        """The object as the store has it; None if there is none."""
        try:
            answer = self.client.get_object(self.bucket, name)
        except S3Error as exc:
            if exc.code != "NoSuchKey":
                raise
            return None
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def open(self, flags: int) -> int:
        """A descriptor that :meth:`close` closes."""
        fd = os.open(self.path, flags, 0o644)
        self.fds.append(fd)
        return fd

    def clear(self) -> None:
        """Remove what the store holds, which would fill its disk in the long run."""
        for found in self.client.list_objects(self.bucket, prefix=self.name, recursive=True):
            self.client.remove_object(self.bucket, str(found.object_name))

    def close(self) -> None:
        """Close what is open; a file that was not saved says so a last time."""
        while self.fds:
            with contextlib.suppress(OSError):
                os.close(self.fds.pop())
