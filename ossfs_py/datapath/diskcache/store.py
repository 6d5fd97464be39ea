"""The store of all cached versions: admission under the limits, and the way to each version."""

import mmap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ossfs_py.datapath.diskcache import evictor
from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.disk import Attachment, CacheDisk
from ossfs_py.datapath.diskcache.layout import PAGE_BYTES, Identity, is_cacheable, round_up
from ossfs_py.datapath.diskcache.ledger import LedgerBusyError, Totals
from ossfs_py.errors import is_disk_full
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.diskroom import left_bytes
from ossfs_py.telemetry.metrics import Metrics

MIB = 1024**2

_BATCH_SHARE = 32
"""Eviction frees at least one part in this many of what is used, so that choosing whom to evict
costs little per byte."""
_MAX_BATCH_BYTES = 256 * MIB

_TURN_BYTES = 16 * MIB
"""Shrinking gives the lock to others after this much."""

_FRUITLESS_SECONDS = 0.25
"""After an eviction that found everything in use, there is no new search for this long."""

_RECOUNT_SECONDS = 60.0
"""How often the files may be counted when the ledger says full and nothing can be evicted: files
deleted by hand, or a killed mount, leave a sum that is too high."""

_COPY_BYTES = 8 * MIB
"""Written files are taken in by steps of this."""

_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
"""Memory of nobody else: mmap's default is shared, which tmpfs zeroes and counts page by page."""


class BlockStore:
    """Blocks of object versions on disk, keyed by (place, bucket, key, ETag, size).

    Holds ``limit_bytes`` over all mounts that use the directory and leaves ``min_free_bytes`` of
    the file system to others: space is allocated, and counted, under one lock before anything is
    written. Every method blocks on local disk only, is safe for any thread, and never raises for
    a directory that is full, read-only, broken or gone: the cache is then as good as empty.
    """

    def __init__(
        self,
        cache_dir: Path,
        place: str,
        bucket: str,
        *,
        limit_bytes: int,
        min_free_bytes: int | None,
        metrics: Metrics,
        block_size_bytes: int = MIB,
    ) -> None:
        self.limit_bytes = limit_bytes
        self.min_free_bytes = min_free_bytes
        self.block_size_bytes = block_size_bytes
        self.metrics = metrics
        metrics.cache_limit_bytes.set(limit_bytes)
        self.disk = CacheDisk(cache_dir, block_size_bytes)
        self._place = place
        self._bucket = bucket
        self._fruitless_until = 0.0
        self._recount_at = 0.0
        self._tally = threading.Lock()
        self._hit_bytes = 0
        self._miss_bytes = 0

    def identity(self, version: ObjectVersion) -> Identity | None:
        """The identity of a version in the cache; None if it cannot be cached."""
        if not is_cacheable(version):
            return None
        return Identity(self._place, self._bucket, version, self.block_size_bytes)

    def open(self, identity: Identity) -> BlockFile | None:
        """The file of a version, held against eviction until closed; None if there is none.

        Opening counts as a use.
        """
        attachment = self.disk.attachment()
        if attachment is None:
            return None
        try:
            return BlockFile.open(attachment.root.fd, identity)
        except OSError as exc:
            self.disk.failed(exc)
            return None

    def look(self, identity: Identity) -> BlockFile | None:
        """As :meth:`open`, without counting a use."""
        attachment = self.disk.attachment()
        if attachment is None:
            return None
        try:
            return BlockFile.look(attachment.root.fd, identity.shelf, identity.name)
        except OSError as exc:
            self.disk.failed(exc)
            return None

    def keep(
        self, identity: Identity, file: BlockFile | None, first: int, view: memoryview
    ) -> BlockFile | None:
        """Write the blocks from ``first`` on whose bytes ``view`` holds.

        ``file`` is None if the version has none yet. Returns the file (the caller closes it) if
        the blocks are in it now, None if they are not.
        """
        last = first + -(-len(view) // self.block_size_bytes)
        self._count_miss(len(view))
        admitted = self._admit(identity, file, first, last)
        if admitted is None:
            return None
        try:
            admitted.write(first, last, view)
        except OSError as exc:
            self._write_failed(exc, len(view))
            if admitted is not file:
                admitted.close()
            return None
        self.disk.worked()
        self.metrics.cache_kept_bytes.inc(len(view))
        return admitted

    def ingest(
        self,
        version: ObjectVersion,
        source_fd: int,
        unchanged: Callable[[], bool],
        spans: ExtentSet | None = None,
    ) -> int:
        """Take in a version whose bytes, all or those in ``spans``, are in a local file at their
        offsets; returns the bytes kept.

        Where the file system can, the bytes are shared or copied without passing through here.
        ``unchanged`` (called on this thread) must answer False from before the first byte of the
        file changes: nothing is kept that was copied after that.
        """
        identity = self.identity(version)
        if identity is None:
            return 0
        step = max(1, _COPY_BYTES // self.block_size_bytes)
        file = self.open(identity)
        kept = 0
        longest_bytes = min(step * self.block_size_bytes, max(version.size, 1))
        try:
            # The allocator would keep up to 16 MiB for each thread that ever took so much from it.
            memory = memoryview(mmap.mmap(-1, longest_bytes, flags=_PRIVATE))
            for first, last in _runs_within(identity, spans, step):
                admitted = self._admit(identity, file, first, last)
                if admitted is None:
                    break
                file = admitted
                start, end = identity.span(first, last)
                view = memory[: end - start]
                if not (file.copy_from(source_fd, start, first, view) and unchanged()):
                    break
                file.record(first, last, view)
                kept += end - start
            self.metrics.cache_kept_bytes.inc(kept)
        except OSError as exc:
            self._write_failed(exc, 0)
        finally:
            if file is not None:
                file.close()
        return kept

    def release(self, file: BlockFile) -> None:
        """Close a file that :meth:`open` or :meth:`keep` gave out: it may be evicted now."""
        file.close()
        self._fruitless_until = 0.0

    def count_hit(self, size: int) -> None:
        """Bytes were read from disk."""
        self.metrics.cache_hit_bytes.inc(size)
        with self._tally:
            self._hit_bytes += size

    def skip(self, reason: str, size: int) -> None:
        """Fetched bytes were not written to disk."""
        self.metrics.cache_skipped_bytes.labels(reason).inc(size)

    def shrink(self) -> None:
        """Evict until both limits hold; for calling now and then, as others fill the disk."""
        attachment = self.disk.attachment()
        if attachment is None:
            return
        try:
            done = False
            while not done:
                # In turns, so that nobody who wants to write waits for long.
                with attachment.ledger.locked() as totals:
                    self._settle(totals)
                    shortfall = self._shortfall(attachment, totals, 0)
                    freed = 0
                    if shortfall > 0:
                        freed = self._evict(attachment, totals, min(shortfall, _TURN_BYTES))
                    done = freed == 0
        except LedgerBusyError:
            return
        except OSError as exc:
            self.disk.failed(exc)

    def forget(self, version: ObjectVersion) -> int:
        """Evict one version unless it is open; returns the bytes freed."""
        identity = self.identity(version)
        attachment = self.disk.attachment()
        if identity is None or attachment is None:
            return 0
        try:
            with attachment.ledger.locked() as totals:
                freed = 0
                for candidate in evictor.candidates(attachment.root, [identity.shelf]):
                    if candidate.name == identity.name:
                        freed = evictor.evict_file(attachment.root, candidate)
                totals.used_bytes -= freed
                return freed
        except LedgerBusyError:
            return 0
        except OSError as exc:
            self.disk.failed(exc)
            return 0

    def share(self, version: ObjectVersion) -> int:
        """How many bytes of a version are on disk. No use is counted."""
        identity = self.identity(version)
        file = None if identity is None else self.look(identity)
        if identity is None or file is None:
            return 0
        file.close()
        spans = (identity.span(i, i + 1) for i, record in enumerate(file.records) if record)
        return sum(end - start for start, end in spans)

    def note_metrics(self) -> None:
        """Store hits and misses, for anybody who asks about the directory."""
        attachment = self.disk.attachment()
        if attachment is not None:
            # They are metrics for people; losing some is no failure of anything.
            with suppress(OSError, LedgerBusyError), attachment.ledger.locked() as totals:
                self._settle(totals)

    def close(self) -> None:
        """Store the metrics and release the directory."""
        self.note_metrics()
        self.disk.close()

    # -- admission ------------------------------------------------------------------------------

    def _admit(
        self, identity: Identity, file: BlockFile | None, first: int, last: int
    ) -> BlockFile | None:
        """The file with disk space for blocks ``[first, last)``; None if there is none to be had.

        A file that is returned and was not given belongs to the caller.
        """
        size = identity.span(first, last)[1] - identity.span(first, last)[0]
        attachment = self.disk.attachment()
        if attachment is None:
            self.skip("unusable", size)
            return None
        opened: BlockFile | None = None
        try:
            with attachment.ledger.locked() as totals:
                self._settle(totals)
                if file is None:
                    opened = BlockFile.open(attachment.root.fd, identity)
                admitted = self._take_space(
                    attachment, totals, identity, file or opened, first, last
                )
        except LedgerBusyError as exc:
            # Not every block is to wait for a mount that was stopped while it held the lock.
            self.skip("busy", size)
            self.disk.failed(exc)
            admitted = None
        except OSError as exc:
            self._write_failed(exc, size)
            admitted = None
        if admitted is None and opened is not None:
            opened.close()
        return admitted

    def _take_space(
        self,
        attachment: Attachment,
        totals: Totals,
        identity: Identity,
        file: BlockFile | None,
        first: int,
        last: int,
    ) -> BlockFile | None:
        start, end = identity.span(first, last)
        if file is not None and not file.linked:
            # Deleted behind our back: what is written into it would be found by nobody.
            self.skip("unusable", end - start)
            return None
        if file is not None:
            need = file.missing_bytes(first, last)
        else:
            need = identity.head_bytes + round_up(end - start, PAGE_BYTES)
        if not self._make_room(attachment, totals, need):
            self.skip("no_room", end - start)
            return None
        # Counted before it is taken: being killed in between must not hide anything.
        totals.used_bytes += need
        totals.save()
        taken = 0
        created: BlockFile | None = None
        try:
            if file is None:
                created, taken = BlockFile.create(attachment.root.fd, identity)
                file = created
            if file is not None:
                before = file.allocated_bytes()
                try:
                    file.allocate(first, last)
                finally:
                    taken += file.allocated_bytes() - before
        except BaseException as exc:
            if created is not None:
                created.close()
            if isinstance(exc, OSError) and is_disk_full(exc):
                # A quota, or others were faster: what the next block needs is freed now.
                self._evict(attachment, totals, need)
            raise
        finally:
            if attachment.exact or file is None:
                totals.used_bytes += taken - need
        return file

    def _make_room(self, attachment: Attachment, totals: Totals, need: int) -> bool:
        shortfall = self._shortfall(attachment, totals, need)
        if shortfall <= 0:
            return True
        now = time.monotonic()
        if need > self.limit_bytes or now < self._fruitless_until:
            return False
        self._evict(attachment, totals, shortfall)
        if self._shortfall(attachment, totals, need) <= 0:
            return True
        if now >= self._recount_at:
            self._recount_at = now + _RECOUNT_SECONDS
            attachment.ledger.recount(totals)
            if self._shortfall(attachment, totals, need) <= 0:
                return True
        self._fruitless_until = now + _FRUITLESS_SECONDS
        if self._disk_shortfall(attachment, need) > 0:
            self.disk.warn_once("the disk is full; reading on without keeping more")
        return False

    def _evict(self, attachment: Attachment, totals: Totals, wanted: int) -> int:
        batch = min(_MAX_BATCH_BYTES, totals.used_bytes // _BATCH_SHARE)
        seen, freed = evictor.evict(attachment.root, wanted, batch)
        if seen is not None and attachment.exact:
            # File systems take a page for bookkeeping here and there after space was counted.
            totals.used_bytes = seen
        totals.used_bytes -= freed
        self.metrics.cache_evicted_bytes.inc(freed)
        return freed

    def _shortfall(self, attachment: Attachment, totals: Totals, need: int) -> int:
        return max(
            totals.used_bytes + need - self.limit_bytes, self._disk_shortfall(attachment, need)
        )

    def _disk_shortfall(self, attachment: Attachment, need: int) -> int:
        return need - left_bytes(attachment.root.fd, self.min_free_bytes)

    def capacity_bytes(self, attachment: Attachment, used_bytes: int) -> int:
        """How much the directory could hold now, which has ``used_bytes`` in it.

        Raises:
            OSError: the disk does not tell its free space.
        """
        left = left_bytes(attachment.root.fd, self.min_free_bytes)
        return min(self.limit_bytes, used_bytes + max(0, left))

    # -- keeping count ----------------------------------------------------------------------------

    def _write_failed(self, exc: OSError, size: int) -> None:
        if is_disk_full(exc):
            self.skip("no_room", size)
            self.disk.warn_once("the disk is full; reading on without keeping more")
        else:
            self.skip("unusable", size)
            self.disk.failed(exc)

    def _count_miss(self, size: int) -> None:
        self.metrics.cache_miss_bytes.inc(size)
        with self._tally:
            self._miss_bytes += size

    def _settle(self, totals: Totals) -> None:
        with self._tally:
            hits, self._hit_bytes = self._hit_bytes, 0
            misses, self._miss_bytes = self._miss_bytes, 0
        totals.hit_bytes += hits
        totals.miss_bytes += misses
        self.metrics.cache_used_bytes.set(totals.used_bytes)


def _runs_within(
    identity: Identity, spans: ExtentSet | None, step: int
) -> Iterator[tuple[int, int]]:
    """Runs of at most ``step`` blocks that lie completely in ``spans``."""
    for first in range(0, identity.block_count, step):
        last = min(first + step, identity.block_count)
        if spans is None or spans.covers(*identity.span(first, last)):
            yield first, last
        else:
            for index in range(first, last):
                if spans.covers(*identity.span(index, index + 1)):
                    yield index, index + 1
