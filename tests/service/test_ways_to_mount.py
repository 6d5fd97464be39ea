"""What others must not gain, whichever way it was mounted: by root's fstab, or by fusermount3."""

import io
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from minio import Minio

from tests.conftest import make_bucket
from tests.service.booted import Booted
from tests.support.commands import (
    NOBODY,
    as_ordinary_user,
    as_root,
    open_fuse_device,
    ordinary_user,
    ossfs,
)
from tests.support.seaweed import Account, SeaweedServer
from tests.support.tls_front import TlsFront, make_certificate

LENDING = {"nosuid", "nodev"}
TRUE, FORGED = b"the weights", b"a back door"
STRANGER = NOBODY - 1


class Way(Protocol):
    """One way to mount, with options as in fstab; everything lies below ``place``."""

    place: Path

    def write(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        """A file that the mount's user may read."""
        ...

    def mount(self, source: str, **options: str | Path) -> Path:
        """Mount for everybody; the mountpoint. An option of "" is a flag."""
        ...

    def unmount(self) -> None:
        """Take the mount down, and wait until its daemon has gone."""
        ...

    def run(self, *command: str | Path, uid: int) -> subprocess.CompletedProcess[str]:
        """Run a command where the mount is seen, as a user without any capabilities."""
        ...


def _as(uid: int) -> list[str]:
    if uid == 0:
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


def _words(options: Mapping[str, str | Path]) -> list[str]:
    return [f"{name}={value}" if value else name for name, value in options.items()]


class ByFstab:
    """A line of fstab, mounted and then remounted, by root."""

    def __init__(self, machine: Booted) -> None:
        self.machine = machine
        self.place = Path("/run/way")
        self.mountpoint = self.place / "mnt"
        machine.run("mkdir", "-p", self.mountpoint)

    def write(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        self.machine.write(str(self.place / name), content.decode(), f"{mode:o}")
        return self.place / name

    def mount(self, source: str, **options: str | Path) -> Path:
        words = _words(options)
        words += ["allow_other", "suid", "dev", f"state_dir={self.place}/state"]
        line = f"{source} {self.mountpoint} fuse.ossfs-py {','.join(words)} 0 0\n"
        self.machine.write("/etc/fstab", line)
        self.machine.run("mount", self.mountpoint)
        self.machine.run("mount", "-o", "remount", self.mountpoint)
        return self.mountpoint

    def unmount(self) -> None:
        self.machine.run("umount", self.mountpoint)

    def run(self, *command: str | Path, uid: int) -> subprocess.CompletedProcess[str]:
        return self.machine.run(*_as(uid), *command, check=False)

    def close(self) -> None:
        self.machine.run("umount", "-l", self.mountpoint, check=False)
        self.machine.write("/etc/fstab", "")
        self.machine.run("rm", "-rf", self.place)


class ByFusermount:
    """The command, run by an ordinary user."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mountpoint = place / "mnt"
        self.mountpoint.mkdir()
        self._hand_over(place, self.mountpoint)
        place.chmod(0o755)
        self._wrapper = as_ordinary_user() if os.geteuid() == 0 else []

    def _hand_over(self, *paths: Path) -> None:
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, *ordinary_user())

    def write(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        path = self.place / name
        path.touch(mode)
        path.write_bytes(content)
        self._hand_over(path)
        return path

    def mount(self, source: str, **options: str | Path) -> Path:
        words = _words(options)
        words += ["allow_other", f"state_dir={self.place}/state", f"temp_dir={self.place}"]
        command = ["mount", source, self.mountpoint, "-o", ",".join(words)]
        outcome = ossfs(*command, environment={}, wrapper=self._wrapper)
        assert outcome.code == 0, outcome.err
        return self.mountpoint

    def unmount(self) -> None:
        outcome = ossfs("umount", self.mountpoint, environment={}, wrapper=self._wrapper)
        assert outcome.code == 0, outcome.err

    def run(self, *command: str | Path, uid: int) -> subprocess.CompletedProcess[str]:
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        return subprocess.run(
            [*root, *_as(uid), *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )

    def close(self) -> None:
        subprocess.run(
            ["fusermount3", "-u", "-z", self.mountpoint], capture_output=True, check=False
        )


@pytest.fixture
def by_fstab(machine: Booted) -> Iterator[Way]:
    way = ByFstab(machine)
    yield way
    way.close()


@pytest.fixture
def by_fusermount() -> Iterator[Way]:
    with (
        open_fuse_device(),
        tempfile.TemporaryDirectory() as root,
        tempfile.NamedTemporaryFile("w") as permissive,
    ):
        permissive.write("user_allow_other\n")
        permissive.flush()
        Path(permissive.name).chmod(0o644)
        as_root("mount", "--bind", permissive.name, "/etc/fuse.conf")
        try:
            way = ByFusermount(Path(root))
            yield way
            way.close()
        finally:
            as_root("umount", "/etc/fuse.conf")


@pytest.fixture(params=["by_fstab", "by_fusermount"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def keys(way: Way, seaweed: SeaweedServer) -> dict[str, str | Path]:
    """Options that reach the store."""
    told = f"{seaweed.access_key}:{seaweed.secret_key}\n".encode()
    return {"endpoint": seaweed.endpoint, "credentials_file": way.write("passwd", told)}


def put(client: Minio, bucket: str, key: str, content: bytes, **metadata: str) -> None:
    client.put_object(bucket, key, io.BytesIO(content), len(content), metadata=dict(metadata))


def kernel_options(way: Way, mountpoint: Path) -> set[str]:
    shown = way.run("findmnt", "-no", "VFS-OPTIONS", mountpoint, uid=0).stdout
    return set(shown.strip().split(","))


def test_no_stored_program_runs_as_root_whichever_way_it_was_mounted(
    way: Way, keys: dict[str, str | Path], seaweed: SeaweedServer, minio_client: Minio
) -> None:
    bucket = make_bucket(seaweed)
    put(minio_client, bucket, "tool", Path("/usr/bin/id").read_bytes(), mode="35309", uid="0")
    top = way.mount(bucket, **keys)
    found = way.run("stat", "-c", "%a %u", top / "tool", uid=STRANGER)
    assert found.stdout == "755 0\n"
    assert kernel_options(way, top) >= LENDING
    assert way.run(top / "tool", "-u", uid=STRANGER).stdout == f"{STRANGER}\n"
    way.unmount()


def test_no_prefix_adds_options_whichever_way_it_was_mounted(
    way: Way, keys: dict[str, str | Path], seaweed: SeaweedServer, minio_client: Minio
) -> None:
    bucket = make_bucket(seaweed)
    put(minio_client, bucket, "team,suid,dev/file", b"x", mode="33188")
    top = way.mount(f"{bucket}/team,suid,dev", **keys)
    assert way.run("cat", top / "file", uid=STRANGER).stdout == "x"
    assert kernel_options(way, top) >= LENDING
    way.unmount()


def test_a_listing_opens_nothing_to_others_whichever_way_it_was_mounted(
    way: Way, keys: dict[str, str | Path], seaweed: SeaweedServer, minio_client: Minio
) -> None:
    bucket = make_bucket(seaweed)
    put(minio_client, bucket, "secret", b"only mine", mode="33152", uid="0")
    put(minio_client, bucket, "theirs", b"their own", mode="33152", uid=str(STRANGER))
    put(minio_client, bucket, "model", b"weights")
    top = way.mount(bucket, **keys)
    for _ in range(2):
        assert way.run("ls", "-l", top, uid=STRANGER).returncode == 0
        refused = way.run("cat", top / "secret", uid=STRANGER)
        assert "Permission denied" in refused.stderr
        assert way.run("cat", top / "theirs", uid=STRANGER).stdout == "their own"
        assert way.run("cat", top / "model", uid=STRANGER).stdout == "weights"
    way.unmount()


def test_the_disk_cache_remembers_who_may_read_whichever_way_it_was_mounted(
    way: Way, tmp_path: Path
) -> None:
    with SeaweedServer([Account("lister", ("List",))]) as server:
        server.make_bucket("secrets")
        (secret := tmp_path / "secret").write_bytes(b"only for those who may")
        server.put_file("secrets", "secret", secret)
        said = []
        for name in ("admin", "lister"):
            who = server.identities[name]
            passwords = way.write(name, f"{who.access_key}:{who.secret_key}\n".encode())
            top = way.mount(
                "secrets",
                endpoint=server.endpoint,
                credentials_file=passwords,
                data_path="cache",
                cache_dir=way.place / "cache",
                ro="",
                trust_default_modes="",
            )
            said.append(way.run("cat", top / "secret", uid=STRANGER))
            way.unmount()
    assert said[0].stdout == "only for those who may"
    assert said[1].stdout == ""
    assert "Permission denied" in said[1].stderr


def test_the_disk_cache_remembers_whom_it_trusted_whichever_way_it_was_mounted(
    way: Way,
    keys: dict[str, str | Path],
    seaweed: SeaweedServer,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    bucket = make_bucket(seaweed)
    put(minio_client, bucket, "model", TRUE)
    honest, somebody = (make_certificate(tmp_path, name) for name in ("honest", "somebody"))
    options = {
        **keys,
        "data_path": "cache",
        "cache_dir": way.place / "cache",
        "ca_bundle": way.write("bundle.pem", honest[0].read_bytes()),
    }
    with TlsFront(seaweed.host) as front:
        options["endpoint"] = front.endpoint
        front.show(*somebody)
        front.forged = {TRUE: FORGED}
        top = way.mount(bucket, **options, verify_tls="no")
        assert way.run("cat", top / "model", uid=STRANGER).stdout == FORGED.decode()
        way.unmount()
        front.show(*honest)
        front.forged = {}
        top = way.mount(bucket, **options)
        assert way.run("cat", top / "model", uid=STRANGER).stdout == TRUE.decode()
        way.unmount()
