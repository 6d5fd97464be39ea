"""A fresh directory on a mount for one test, and a view of what the store has below it."""

import io
import itertools
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from tests.support.mounting import Mount

PROGRAM_SECONDS = 120
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Workplace:
    """A fresh directory on the mount, a fresh one on local disk, and a view of the store."""

    path: Path
    local: Path
    bucket: str
    prefix: str
    client: Minio

    @classmethod
    def make(cls, mounted: Mount, client: Minio, local: Path) -> "Workplace":
        """Make the directory on the mount."""
        name = f"work-{next(_numbers)}"
        (mounted.path / name).mkdir()
        bucket, _, prefix = mounted.source.partition("/")
        below = f"{prefix}/{name}/" if prefix else f"{name}/"
        return cls(mounted.path / name, local, bucket, below, client)

    def run(self, *command: str | Path) -> str:
        """Output of a program that must succeed; it runs in the directory on the mount."""
        done = subprocess.run(
            [str(word) for word in command],
            check=False,
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def key(self, name: str) -> str:
        """The key of a file below this workplace."""
        return self.prefix + name

    def put(self, name: str, content: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object below this workplace as somebody else."""
        self.client.put_object(
            self.bucket,
            self.key(name),
            io.BytesIO(content),
            len(content),
            metadata=dict(metadata or {}),
        )

    def erase(self, name: str) -> None:
        """Delete an object below this workplace as somebody else."""
        self.client.remove_object(self.bucket, self.key(name))

    def stored(self, name: str) -> bytes:
        """Content of an object below this workplace, as the store has it."""
        answer = self.client.get_object(self.bucket, self.key(name))
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def stored_metadata(self, name: str) -> dict[str, str]:
        """User metadata of an object below this workplace, without the header's prefix."""
        headers = self.client.stat_object(self.bucket, self.key(name)).metadata or {}
        mine = "x-amz-meta-"
        return {
            field.lower().removeprefix(mine): value
            for field, value in headers.items()
            if field.lower().startswith(mine)
        }

    def stored_names(self) -> set[str]:
        """Names of all objects below this workplace, directory markers left out."""
        listed = self.client.list_objects(self.bucket, self.prefix, recursive=True)
        names = (str(item.object_name).removeprefix(self.prefix) for item in listed)
        return {name for name in names if name and not name.endswith("/")}

    def assert_stored_like(self, directory: Path, below: str = "") -> None:
        """The store holds exactly the regular files of a local directory."""
        expected = {
            f"{below}{path.relative_to(directory)}": path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file()
        }
        assert {name for name in self.stored_names() if name.startswith(below)} == set(expected)
        for name, content in expected.items():
            assert self.stored(name) == content, name
