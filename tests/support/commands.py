"""Running ``ossfs-py`` as a program, in a machine that can be bent out of shape.

Some tests need root (a tmpfs, a private mount namespace, another user): as root they have it, as
a user with sudo they ask for it.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.requirements import require_private_mounts

TIMEOUT_SECONDS = 300.0
NOBODY = 65534
FUSE_DEVICE = Path("/dev/fuse")
_FOR_ALL = 0o006
_SECRET_PREFIXES = ("AWS_", "OSS_", "OSSFS_PY_")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ossfs-py: ")
        return lines[0].removeprefix("ossfs-py: ")


def plain_environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without its credentials, settings and proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_SECRET_PREFIXES) and not name.upper().endswith("_PROXY")
    }
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull} | {
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **more,
    }


def ossfs(
    *arguments: str | Path,
    environment: Mapping[str, str],
    wrapper: Sequence[str] = (),
    passed: Sequence[int] = (),
) -> Outcome:
    """Run a command to its end. ``wrapper`` is put before it (``setpriv``, ``unshare``, ...), and
    it has the descriptors ``passed``."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "ossfs_py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=plain_environment(environment),
        timeout=TIMEOUT_SECONDS,
        check=False,
        pass_fds=passed,
        # Not the checkout: the daemon must not depend on where it was started.
        cwd="/",
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def as_root(*command: str | Path) -> None:
    """Run a command as root; it must succeed."""
    words = [str(word) for word in command]
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*prefix, *words], check=True, capture_output=True, timeout=TIMEOUT_SECONDS)


@contextlib.contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """A small file system of its own, owned by whoever runs the tests.

    Skips the test where none can be mounted.
    """
    path.mkdir()
    owner = f"uid={os.geteuid()},gid={os.getegid()},mode=0700"
    try:
        as_root("mount", "-t", "tmpfs", "-o", f"{owner},{options}", "tmpfs", path)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no tmpfs can be mounted here: {exc.stderr.decode().strip()}")
    try:
        yield path
    finally:
        as_root("umount", path)


def ordinary_user() -> tuple[int, int]:
    """User and group of somebody who is not root: who runs the tests, or nobody."""
    return (os.geteuid(), os.getegid()) if os.geteuid() != 0 else (NOBODY, NOBODY)


def as_ordinary_user() -> list[str]:
    """Wrapper that, as root, runs a command as an ordinary user.

    The user keeps the capability to read every file, as the checkout may lie below /root.
    """
    uid, gid = ordinary_user()
    capability = "+dac_read_search"
    return [
        *("setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups"),
        *("--inh-caps", capability, "--ambient-caps", capability, "--"),
    ]


@contextlib.contextmanager
def open_fuse_device() -> Iterator[None]:
    """Ordinary users may use the device, as where udev looks after it.

    It belongs to the whole machine: a lock on its directory lets one test have it at a time.
    """
    directory = os.open(FUSE_DEVICE.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        mode = stat.S_IMODE(FUSE_DEVICE.stat().st_mode)
        if mode & _FOR_ALL == _FOR_ALL:
            yield
            return
        try:
            as_root("chmod", "666", FUSE_DEVICE)
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"ordinary users may not use {FUSE_DEVICE}: {exc.stderr.decode().strip()}")
        try:
            yield
        finally:
            as_root("chmod", f"{mode:o}", FUSE_DEVICE)
    finally:
        os.close(directory)


@contextlib.contextmanager
def allow_other_permitted() -> Iterator[None]:
    """A machine on which everybody may use allow_other; root may anyway."""
    if os.geteuid() == 0:
        yield
        return
    with tempfile.NamedTemporaryFile("w") as permissive:
        permissive.write("user_allow_other\n")
        permissive.flush()
        Path(permissive.name).chmod(0o644)
        as_root("mount", "--bind", permissive.name, "/etc/fuse.conf")
        try:
            yield
        finally:
            as_root("umount", "/etc/fuse.conf")


def without_fuse_device() -> list[str]:
    """Wrapper that runs a command as root in a /dev that has no fuse."""
    return _changed_machine(
        "mount -t tmpfs tmpfs /dev"
        " && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9"
    )


def with_another_device() -> list[str]:
    """Wrapper that runs a command as root where /dev/fuse is another device."""
    return _changed_machine(f"mount --bind /dev/null {FUSE_DEVICE}")


def without_fusermount() -> list[str]:
    """Wrapper that runs a command as an ordinary user where fusermount3 is no program."""
    helper = shutil.which("fusermount3")
    assert helper is not None, "the package fuse3 is not installed"
    return [*_changed_machine(f"mount --bind /dev/null {helper}"), *as_ordinary_user()]


def without_permissions() -> list[str]:
    """Wrapper that runs a command as an ordinary user where fuse.conf permits nothing."""
    return [*_changed_machine("mount --bind /dev/null /etc/fuse.conf"), *as_ordinary_user()]


def _changed_machine(change: str) -> list[str]:
    """Wrapper: a private mount namespace in which root has done ``change`` first.

    Skips the test where there can be none.
    """
    require_private_mounts()
    root = [] if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env"]
    return [*root, "unshare", "--mount", "sh", "-c", f'{change} && exec "$@"', "sh"]
