"""Mounting, serving and unmounting through pyfuse3."""

import logging
import os
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pyfuse3
import trio

from ossfs_py.errors import NOBODY_WAITS, EnvironmentProblemError
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.invalidation import KernelInvalidation
from ossfs_py.fuse.options import FuseOptions
from ossfs_py.fuse.recorded import RecordedAdapter
from ossfs_py.fuse.tuning import connection_gone, tune, waiting_requests
from ossfs_py.host.mountpoint import SUBTYPE
from ossfs_py.host.words import shown_source
from ossfs_py.telemetry.accesslog import AccessLog
from ossfs_py.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

_MIN_TASKS = 8
_MAX_TASKS = 1024
"""Blocked READs hold a session task each; with pyfuse3's 99 they starve stat and ls."""


def _is_trouble(record: logging.LogRecord) -> bool:
    """Not when the kernel no longer waits for an answer: its program was killed, or the mount is
    gone. pyfuse3 calls that an error."""
    return record.args != (NOBODY_WAITS,)


class UnmountedEarlyError(Exception):
    """The mount was gone before it was of any use."""


@asynccontextmanager
async def mounted(
    filesystem: Filesystem,
    options: FuseOptions,
    metrics: Metrics,
    access: AccessLog | None = None,
) -> "AsyncIterator[Callable[[], None]]":
    """Mount and serve while the body runs; yields what ends serving.

    The body runs beside the request loop. When the loop ends by itself (somebody unmounted), the
    body is cancelled. On the way out the mount is gone, whatever happened. With ``access`` every
    request is written there.

    Raises:
        EnvironmentProblemError: the kernel or fusermount3 refused.
        UnmountedEarlyError: somebody unmounted before the body began.
    """
    adapter = (
        Adapter(filesystem, metrics)
        if access is None
        else RecordedAdapter(filesystem, metrics, access)
    )
    logging.getLogger(pyfuse3.__name__).addFilter(_is_trouble)
    invalidation = KernelInvalidation()
    try:
        pyfuse3.init(adapter, str(options.mountpoint), libfuse_options(options))
    except RuntimeError as exc:
        invalidation.close()
        raise EnvironmentProblemError(
            f"the kernel did not accept the mount at {options.mountpoint}: {exc}"
        ) from None
    body_began = False
    try:
        with filesystem.mounted_through(invalidation):
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    await _serve_until_gone()
                    nursery.cancel_scope.cancel()

                async def watch() -> None:
                    await connection_gone()
                    adapter.end_reads()

                nursery.start_soon(serve)
                nursery.start_soon(watch)
                nursery.start_soon(adapter.callers.run)
                # The answer to a first request comes after INIT, which sets the readahead anew.
                await trio.to_thread.run_sync(
                    os.statvfs, options.mountpoint, abandon_on_cancel=True
                )
                tune(options.mountpoint, options.readahead_bytes)
                metrics.kernel_waiting.set_function(waiting_requests(options.mountpoint))
                body_began = True
                yield pyfuse3.terminate
                adapter.end_reads()
                pyfuse3.terminate()
        if not body_began:
            raise UnmountedEarlyError
    finally:
        invalidation.close()
        pyfuse3.close(unmount=True)


async def _serve_until_gone() -> None:
    """Answer requests until the kernel has let go of the mount, however it says so.

    ENODEV is what pyfuse3 knows. A request that the kernel takes off its queue at the moment when
    the connection goes ends the read with ECONNABORTED instead (fuse_dev_do_read in
    fs/fuse/dev.c): seen in 1 of some thousand unmounts. pyfuse3 cancels the handlers under way
    then; those that change something are shielded (see Adapter).
    """
    try:
        await pyfuse3.main(min_tasks=_MIN_TASKS, max_tasks=_MAX_TASKS)
    except* ConnectionAbortedError:
        log.debug("the connection went while a request was taken off its queue")


def libfuse_options(options: FuseOptions) -> set[str]:
    """What libfuse is told, each word an option of its own."""
    # Who may write to the bucket must not make programs that run as somebody else, nor devices:
    # stated rather than left to libfuse, whose own default a remount would lose.
    wanted = {
        f"fsname={shown_source(options.source)}",
        f"subtype={SUBTYPE}",
        "default_permissions",
        "nosuid",
        "nodev",
        *options.kernel_options,
    }
    if options.allow_other:
        wanted.add("allow_other")
    if options.read_only:
        wanted.add("ro")
    return wanted
