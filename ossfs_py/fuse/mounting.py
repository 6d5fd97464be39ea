"""Mounting through libfuse, which writes on standard error why the kernel has refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3

from ossfs_py.errors import EnvironmentProblemError

_STDERR = 2
_SPEAKERS = (b"fuse: ", b"fusermount3: ")
_ADVICE = (
    "is /dev/fuse the FUSE device (modprobe fuse), and may this user mount? A container needs"
    " --device /dev/fuse --cap-add SYS_ADMIN and, where AppArmor forbids mounting, --security-opt"
    " apparmor=unconfined"
)


def begin(operations: pyfuse3.Operations, where: str, mountpoint: Path, options: set[str]) -> None:
    """Make pyfuse3's session, and mount unless ``where`` names a descriptor.

    Raises:
        EnvironmentProblemError: the kernel or fusermount3 refused, with the reason and with advice.
    """
    said: list[bytes] = []
    try:
        with _heard(said):
            pyfuse3.init(operations, where, options)
    except RuntimeError as exc:
        reason = said[-1].decode(errors="replace").rpartition(": ")[2] if said else str(exc)
        raise EnvironmentProblemError(
            f"the kernel did not accept the mount at {mountpoint} ({reason.strip()}): {_ADVICE}"
        ) from None


@contextmanager
def _heard(said: list[bytes]) -> Iterator[None]:
    """If the block fails, keep what libfuse and fusermount3 have written on standard error.

    Everything else that was written there meanwhile, by other threads too, is written after it.
    """
    try:
        before = os.dup(_STDERR)
    except OSError:  # it is closed
        yield
        return
    kept = os.memfd_create("ossfs-py-stderr")
    os.dup2(kept, _STDERR)
    try:
        yield
    except RuntimeError:
        said += [line for line in _lines(kept) if line.startswith(_SPEAKERS)]
        raise
    finally:
        os.dup2(before, _STDERR)
        os.close(before)
        with suppress(OSError):  # nobody reads it any more
            os.write(_STDERR, b"".join(line for line in _lines(kept) if line not in said))
        os.close(kept)


def _lines(file: int) -> list[bytes]:
    return os.pread(file, os.fstat(file).st_size, 0).splitlines(keepends=True)
