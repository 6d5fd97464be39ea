"""The cache directory over time: attached, lost, found again, with one warning for each loss."""

import logging
import os
import tempfile
import threading
import time
from pathlib import Path

from ossfs_py.datapath.diskcache.ledger import Ledger
from ossfs_py.datapath.diskcache.root import CacheRoot, CacheUnusableError

log = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0
"""How long a directory that failed is not used: reads come from the network meanwhile."""

_PROBE_BYTES = 1024**2


class Attachment:
    """A cache directory in use.

    ``exact``: the file system counts space when it is allocated. Where it does not (ZFS, some
    network file systems), what was asked for is counted instead.
    """

    __slots__ = ("exact", "ledger", "root")

    def __init__(self, root: CacheRoot) -> None:
        self.root = root
        self.ledger = Ledger(root.fd, root.allocated_bytes)
        self.exact = _allocates_at_once(root.path)

    def alive(self) -> bool:
        """Whether the directory is still the one at its path."""
        try:
            return os.path.samestat(os.fstat(self.root.fd), self.root.path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Release the directory."""
        self.ledger.close()
        self.root.close()


class CacheDisk:
    """Gives out the attachment while the directory is in order. Safe for any thread."""

    def __init__(self, cache_dir: Path, block_size_bytes: int) -> None:
        self._cache_dir = cache_dir
        self._block_size_bytes = block_size_bytes
        self._mutex = threading.Lock()
        self._attachment: Attachment | None = None
        self._retired: list[Attachment] = []
        self._suspended_until = 0.0
        self._warned = False
        self._closed = False

    def attachment(self) -> Attachment | None:
        """The directory, opened if needed; None while it is not used after a failure."""
        if time.monotonic() < self._suspended_until:
            return None
        with self._mutex:
            if self._closed or time.monotonic() < self._suspended_until:
                return None
            if self._attachment is not None:
                return self._attachment
            try:
                self._attachment = Attachment(CacheRoot(self._cache_dir, self._block_size_bytes))
            except (OSError, CacheUnusableError) as exc:
                self._fail(exc)
            return self._attachment

    def failed(self, exc: Exception) -> None:
        """The directory did not do what was asked: leave it alone for a while."""
        with self._mutex:
            self._fail(exc)

    def worked(self) -> None:
        """Something was written: the next failure deserves its own warning."""
        if self._warned:
            with self._mutex:
                if self._warned and not self._closed:
                    self._warned = False
                    log.info("the cache in %s can be used again", self._cache_dir)

    def warn_once(self, text: str) -> None:
        """One warning until something works again."""
        with self._mutex:
            self._warn(text)

    def close(self) -> None:
        """Release everything; threads that still use it get OSError."""
        with self._mutex:
            self._closed = True
            attachments = [*self._retired, *([self._attachment] if self._attachment else [])]
            self._retired.clear()
            self._attachment = None
        for attachment in attachments:
            attachment.close()

    def _fail(self, exc: Exception) -> None:
        self._suspended_until = time.monotonic() + _RETRY_SECONDS
        current = self._attachment
        if current is not None and not current.alive():
            # Other threads may be using its descriptors: closed at the end only. A directory is
            # not deleted often enough to matter.
            self._retired.append(current)
            self._attachment = None
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        self._warn(f"{reason}; reading on without it")

    def _warn(self, text: str) -> None:
        if not self._warned and not self._closed:
            self._warned = True
            log.warning("the cache in %s: %s", self._cache_dir, text)


def _allocates_at_once(path: Path) -> bool:
    with tempfile.TemporaryFile(dir=path, buffering=0) as probe:
        try:
            os.posix_fallocate(probe.fileno(), 0, _PROBE_BYTES)
        except OSError:
            # Also on a full disk, where counting what is asked for errs on the safe side.
            return False
        return os.fstat(probe.fileno()).st_blocks * 512 >= _PROBE_BYTES
