"""The Debian package of OSSFS_PY_DEB, installed on this machine, used, and purged again.

Both are the whole of what a user does: ``apt install ./ossfs-py_*.deb``, README's lines, ``apt
purge``. A machine that has the package already is left alone.
"""

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.support.seaweed import SeaweedServer
from tests.support.typed import first_minute

PACKAGE = "ossfs-py"
ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
FILES = (
    "/usr/bin/ossfs-py",
    "/usr/sbin/mount.fuse.ossfs-py",
    "/usr/lib/systemd/system/ossfs-py@.service",
    "/usr/share/man/man1/ossfs-py.1.gz",
    "/usr/share/bash-completion/completions/ossfs-py",
    "/usr/share/zsh/vendor-completions/_ossfs-py",
    "/usr/share/fish/vendor_completions.d/ossfs-py.fish",
    "/usr/share/doc/ossfs-py/copyright",
    "/etc/logrotate.d/ossfs-py",
    "/etc/ossfs-py",
)


def run(*command: str) -> str:
    """What the command says; it has to go well."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        [*ROOT, *command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    known = subprocess.run(["dpkg-query", "--status", PACKAGE], check=False, capture_output=True)
    assert known.returncode, f"{PACKAGE} is installed on this machine; it stays as it is"
    run("apt-get", "install", "-y", "-qq", str(Path(os.environ["OSSFS_PY_DEB"]).resolve()))
    yield
    run("apt-get", "purge", "-y", "-qq", PACKAGE)
    left = [
        path
        for path in (*FILES, "/usr/lib/ossfs-py", "/usr/share/doc/ossfs-py")
        if Path(path).exists()
    ]
    assert left == []


def test_what_a_package_has_is_there(installed: None) -> None:
    assert [path for path in FILES if not Path(path).exists()] == []
    conffiles = run("dpkg-query", "--show", "--showformat=${Conffiles}", PACKAGE)
    assert conffiles.split()[0] == "/etc/logrotate.d/ossfs-py"
    assert run("dpkg", "--verify", PACKAGE) == ""
    assert "ossfs-py" in run("/usr/bin/ossfs-py", "--version")
    assert run("/usr/bin/ossfs-py", "completion", "bash") == Path(FILES[4]).read_text()


def test_the_installed_program_mounts_reads_writes_and_unmounts(
    installed: None, tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    minio_client.put_object(bucket, "hello", io.BytesIO(b"hello from the bucket\n"), 22)
    typed = first_minute(
        "/usr/bin", tmp_path / "home", bucket, seaweed.endpoint, seaweed.environment
    )
    assert (typed.returncode, typed.stderr) == (0, "")
    assert "hello from the bucket" in typed.stdout
    assert minio_client.get_object(bucket, "answer").data == b"written\n"
