"""The cache directory itself: ours alone, of our format, and in use by us."""

import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ossfs_py.datapath.diskcache.layout import (
    FORMAT,
    PLAIN_SUFFIX,
    is_block_file_name,
    is_plain_name,
    is_shelf_name,
    plain_of,
)
from ossfs_py.errors import OssfsError

log = logging.getLogger(__name__)

_ROOT_NAME = "blocks"
"""Below the directory the user names, so that nothing else in there is ever touched."""
_FORMAT_NAME = "format"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_PATIENCE_SECONDS = 2.0
"""How long another mount may take to lay out an empty directory."""
_POLL_SECONDS = 0.01


class CacheUnusableError(OssfsError):
    """The cache directory cannot be used; the text says why in one sentence."""


class CacheRoot:
    """An open cache directory. ``fd`` is the directory; a shared lock says that it is in use."""

    def __init__(self, cache_dir: Path, block_size_bytes: int) -> None:
        """Open ``cache_dir``, laying it out if it is empty or of another format.

        Raises:
            CacheUnusableError: it is somebody else's, or in use with another format.
            OSError: it cannot be made, opened or written.
        """
        self.path = cache_dir / _ROOT_NAME
        self._content = f"ossfs_py cache {FORMAT}, blocks of {block_size_bytes}\n".encode()
        with suppress(FileExistsError):
            cache_dir.mkdir(mode=0o700)
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        self.fd = os.open(self.path, _OPEN_DIRECTORY)
        self._format_fd = -1
        try:
            self._check_owner()
            self._format_fd = os.open(
                _FORMAT_NAME,
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self.fd,
            )
            self._settle_format()
        except BaseException:
            self.close()
            raise

    def shelves(self) -> list[str]:
        """The directories of block files, in no order."""
        with os.scandir(self.fd) as entries:
            return [e.name for e in entries if is_shelf_name(e.name)]

    def files(self, shelf: str) -> Iterator[tuple[str, os.stat_result, int]]:
        """Name, stat(2) and disk space of every block file in a shelf; empty if it is gone.

        The space includes the file with a large object's bytes. Such a file without its block file
        is listed in its place.
        """
        try:
            fd = os.open(shelf, _OPEN_DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            return
        try:
            found: dict[str, os.stat_result] = {}
            with os.scandir(fd) as entries:
                for entry in entries:
                    if is_block_file_name(entry.name) or is_plain_name(entry.name):
                        with suppress(FileNotFoundError):
                            info = entry.stat(follow_symlinks=False)
                            if stat.S_ISREG(info.st_mode):
                                found[entry.name] = info
        finally:
            os.close(fd)
        for name, info in found.items():
            if is_block_file_name(name):
                plain = found.get(plain_of(name))
                blocks = info.st_blocks + (plain.st_blocks if plain is not None else 0)
                yield name, info, blocks * 512
            elif name.removesuffix(PLAIN_SUFFIX) not in found:
                yield name.removesuffix(PLAIN_SUFFIX), info, info.st_blocks * 512

    def allocated_bytes(self) -> int:
        """The disk space of all block files, by counting."""
        return sum(taken for shelf in self.shelves() for _, _, taken in self.files(shelf))

    def close(self) -> None:
        """Release the directory."""
        for fd in (self._format_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self._format_fd = self.fd = -1

    def _check_owner(self) -> None:
        info = os.fstat(self.fd)
        if info.st_uid != os.geteuid():
            raise CacheUnusableError(f"{self.path} belongs to another user")
        if info.st_mode & 0o077:
            os.fchmod(self.fd, 0o700)

    def _settle_format(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            fcntl.flock(self._format_fd, fcntl.LOCK_SH)
            if os.pread(self._format_fd, 256, 0) == self._content:
                return
            # Trading a shared for an exclusive lock is not atomic: what was read is read again.
            with suppress(BlockingIOError):
                fcntl.flock(self._format_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lay_out()
                continue
            fcntl.flock(self._format_fd, fcntl.LOCK_UN)
            if time.monotonic() > deadline:
                raise CacheUnusableError(
                    f"{self.path} is in use by another mount with another cache format"
                )
            time.sleep(_POLL_SECONDS)

    def _lay_out(self) -> None:
        found = os.pread(self._format_fd, 256, 0)
        if found == self._content:
            return
        if found or self.shelves():
            text = found.decode(errors="replace").strip() or "no known format"
            log.warning("rebuilding the cache in %s: it holds %s", self.path, ascii(text))
        self._wipe()
        os.ftruncate(self._format_fd, 0)
        os.pwrite(self._format_fd, self._content, 0)

    def _wipe(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink("ledger", dir_fd=self.fd)
        for shelf in self.shelves():
            fd = os.open(shelf, _OPEN_DIRECTORY, dir_fd=self.fd)
            try:
                with os.scandir(fd) as entries:
                    names = [
                        e.name
                        for e in entries
                        if is_block_file_name(e.name) or is_plain_name(e.name)
                    ]
                for name in names:
                    os.unlink(name, dir_fd=fd)
            finally:
                os.close(fd)
            # Files that are not ours stay, and their directory with them.
            with suppress(OSError):
                os.rmdir(shelf, dir_fd=self.fd)
