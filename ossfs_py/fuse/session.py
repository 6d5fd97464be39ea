"""Mounting, serving and unmounting through pyfuse3."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyfuse3
import trio

from ossfs_py.errors import NOBODY_WAITS, EnvironmentProblemError
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.backing import Backings
from ossfs_py.fuse.invalidation import (
    KernelInvalidation,
    Notices,
    NoticesByDevice,
    NoticesByPyfuse3,
)
from ossfs_py.fuse.lane import Lane
from ossfs_py.fuse.mounting import begin
from ossfs_py.fuse.options import FuseOptions
from ossfs_py.fuse.recorded import RecordedAdapter
from ossfs_py.fuse.relay import socket_pair
from ossfs_py.fuse.replying import thread_count
from ossfs_py.fuse.succession import Heir, InheritedLane
from ossfs_py.fuse.takeover import (
    NoLaneError,
    check_lane,
    page_limit,
    session_descriptor,
    taken_over,
)
from ossfs_py.fuse.tuning import connection_gone, fuse_descriptors, tune, waiting_requests
from ossfs_py.host.kernelside import is_gone
from ossfs_py.host.mountpoint import SUBTYPE, unmount
from ossfs_py.host.words import shown_source
from ossfs_py.telemetry.accesslog import AccessLog
from ossfs_py.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

_MIN_TASKS = 8
_MAX_TASKS = 1024
"""Each blocked READ occupies a session task; pyfuse3's default of 99 starves stat and ls."""


def _is_trouble(record: logging.LogRecord) -> bool:
    """False if the kernel does not wait for an answer any more: its program was killed, or the
    mount is gone. pyfuse3 logs that as an error.
    """
    return record.args != (NOBODY_WAITS,)


class UnmountedEarlyError(Exception):
    """The mount was gone before it could be used."""


class ServingFailedError(Exception):
    """The kernel could not be answered any more, and the mount was taken down."""


class _Service(Protocol):
    """Answers the kernel."""

    notices: Notices
    """Sends notices to the kernel."""
    backings: Backings | None
    """Registers local files with the kernel; None: it gets none."""
    begun: trio.Event
    """Set when the kernel's first request, INIT, has been answered."""

    @property
    def failure(self) -> BaseException | None:
        """The exception that ended serving, unless the mount was unmounted."""
        ...

    async def serve(self) -> None:
        """Answer until the kernel has released the mount, or :meth:`end` is called, and running
        calls are done.
        """
        ...

    def end(self) -> None:
        """Read no further request."""
        ...


@asynccontextmanager
async def mounted(
    filesystem: Filesystem,
    options: FuseOptions,
    metrics: Metrics,
    access: AccessLog | None = None,
    heir: Heir | None = None,
) -> "AsyncIterator[Callable[[], None]]":
    """Mount and serve while the body runs; yields the function that ends serving.

    The body runs beside the request loop. When the loop ends by itself (an unmount), the body is
    cancelled. On exit the mount is gone in every case. With ``access``, every request is written
    there. With ``heir``, the mount may be that of a dead daemon, and is left to the next daemon if
    serving fails.

    Raises:
        EnvironmentProblemError: the kernel or fusermount3 refused.
        UnmountedEarlyError: the mount was unmounted before the body began.
        ServingFailedError: the daemon could not continue, and the body was cancelled.
    """
    adapter = (
        Adapter(filesystem, metrics)
        if access is None
        else RecordedAdapter(filesystem, metrics, access)
    )
    logging.getLogger(pyfuse3.__name__).addFilter(_is_trouble)
    body_began = False
    if heir is not None and isinstance(filesystem, SurvivingFilesystem):
        heir.filesystem = filesystem
    with _session(adapter, options, heir) as service:
        invalidation = KernelInvalidation(service.notices, service.backings)
        try:
            with filesystem.mounted_through(invalidation):
                async with trio.open_nursery() as nursery:

                    async def serve() -> None:
                        await service.serve()
                        nursery.cancel_scope.cancel()

                    async def watch() -> None:
                        await connection_gone()
                        adapter.reads.end()

                    nursery.start_soon(serve)
                    nursery.start_soon(watch)
                    nursery.start_soon(adapter.callers.run)
                    # INIT resets the readahead. The mount itself is never asked from here: a daemon
                    # that is killed while one of its threads waits for its own answer never
                    # releases the kernel's descriptor, and so no program ever gets an answer.
                    await service.begun.wait()
                    tune(options.mountpoint, options.readahead_bytes)
                    metrics.kernel_waiting.set_function(waiting_requests(options.mountpoint))
                    body_began = True
                    yield service.end
                    adapter.reads.end()
                    service.end()
            if service.failure is not None:
                raise ServingFailedError(
                    "a thread that answers the kernel died"
                ) from service.failure
            if not body_began:
                raise UnmountedEarlyError
        finally:
            invalidation.close()


@contextmanager
def _session(adapter: Adapter, options: FuseOptions, heir: Heir | None) -> Iterator[_Service]:
    """A mount and its service; it is unmounted in the end."""
    if heir is not None and heir.device is not None:
        with _inherited(adapter, options, heir, heir.device) as inherited:
            yield inherited
        return
    if options.descriptor is not None:
        with _given(adapter, options, heir, options.descriptor) as given:
            yield given
        return
    before = fuse_descriptors()
    begin(adapter, str(options.mountpoint), options.mountpoint, libfuse_options(options))
    ends = _Ending(heir)
    try:
        with ends.seen(), _service(adapter, before, heir, options) as service:
            yield service
    finally:
        pyfuse3.close(unmount=ends.unmounts)


@contextmanager
def _given(
    adapter: Adapter, options: FuseOptions, heir: Heir | None, device: int
) -> Iterator[_Service]:
    """A mount that another process has made."""
    os.set_blocking(device, False)
    if options.lane:
        try:
            check_lane()
        except NoLaneError as exc:
            log.info("requests are answered without the fast lane: %s", exc)
        else:
            with _inherited(adapter, options, heir, device) as service:
                yield service
            return
    begin(adapter, f"/dev/fd/{device}", options.mountpoint, libfuse_options(options))
    try:
        yield _ByPyfuse3(adapter.begun)
    finally:
        pyfuse3.close(unmount=False)


@contextmanager
def _inherited(
    adapter: Adapter, options: FuseOptions, heir: Heir | None, device: int
) -> Iterator[_Service]:
    """The mount of a dead daemon, or of another process. libfuse does not know it, so this unmounts
    it if it is ours.
    """
    ours, theirs = socket_pair()
    ends = _Ending(heir)
    with ours:
        number = theirs.detach()
        try:
            # libfuse takes it for a mount that another process has made, and closes it in the end.
            begin(adapter, f"/dev/fd/{number}", options.mountpoint, libfuse_options(options))
        except EnvironmentProblemError:
            os.close(number)
            raise
        try:
            through = options.passthrough
            with (
                ends.seen(),
                _WithLane.over(adapter, device, ours, heir, passes_through=through) as service,
            ):
                yield service
        finally:
            pyfuse3.close(unmount=False)
            if ends.unmounts and options.descriptor is None and not is_gone(device):
                _unmount(options.mountpoint)


def _unmount(mountpoint: Path) -> None:
    try:
        unmount(mountpoint, lazy=True)
    except EnvironmentProblemError as exc:
        # It was taken out of sight already, and ends with the kernel's last descriptor.
        log.info("%s", exc)


class _Ending:
    """Whether to unmount a mount: not if its daemon failed and another one continues."""

    def __init__(self, heir: Heir | None) -> None:
        self._heir = heir
        self.unmounts = True

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Record how the block ends."""
        try:
            yield
        except UnmountedEarlyError:
            raise
        except Exception:
            self.unmounts = self._heir is None or not self._heir.is_kept
            raise
        finally:
            if self._heir is not None and self.unmounts:
                self._heir.ended()


@contextmanager
def _service(
    adapter: Adapter, before: list[int], heir: Heir | None, options: FuseOptions
) -> Iterator[_Service]:
    """The service of a mount that libfuse has just made; ``before``: the kernel's descriptors that
    were open before.
    """
    if options.lane:
        try:
            check_lane()
            descriptor = session_descriptor(before)
        except NoLaneError as exc:
            log.info("requests are answered without the fast lane: %s", exc)
        else:
            through = options.passthrough
            with (
                taken_over(descriptor) as (device, ours),
                _WithLane.over(adapter, device, ours, heir, passes_through=through) as service,
            ):
                yield service
            return
    yield _ByPyfuse3(adapter.begun)


class _ByPyfuse3:
    """pyfuse3 answers everything."""

    def __init__(self, begun: trio.Event) -> None:
        self.notices: Notices = NoticesByPyfuse3()
        self.backings: Backings | None = None
        self.begun = begun
        self.failure = None

    async def serve(self) -> None:
        """Answer requests until the kernel has released the mount, however it reports that.

        pyfuse3 knows ENODEV. If the kernel takes a request off its queue at the moment when the
        connection ends, the read fails with ECONNABORTED instead (fuse_dev_do_read in
        fs/fuse/dev.c): seen in 1 of some thousand unmounts. pyfuse3 then cancels running handlers;
        those that change something are shielded (see Adapter).
        """
        try:
            await pyfuse3.main(min_tasks=_MIN_TASKS, max_tasks=_MAX_TASKS)
        except* ConnectionAbortedError:
            log.debug("the connection went while a request was taken off its queue")

    def end(self) -> None:
        """Read no further request."""
        pyfuse3.terminate()


class _WithLane:
    """The lane answers the most frequent requests, and pyfuse3 the rest."""

    def __init__(self, lane: Lane, device: int) -> None:
        self._lane = lane
        self.notices: Notices = NoticesByDevice(device)
        self.backings = Backings(device) if lane.passes_through else None
        self.begun = lane.begun

    @property
    def failure(self) -> BaseException | None:
        """The exception that ended a thread of the lane."""
        return self._lane.failure

    @classmethod
    @contextmanager
    def over(
        cls,
        adapter: Adapter,
        device: int,
        ours: socket.socket,
        heir: Heir | None,
        *,
        passes_through: bool,
    ) -> "Iterator[_WithLane]":
        """Make it from the kernel's descriptor and our end of the socket that pyfuse3 has."""
        adapter.answers_lane = True
        cores = len(os.sched_getaffinity(0))
        count, pages = thread_count(cores), page_limit()
        lane = (
            Lane(
                adapter,
                device,
                ours,
                threads=count,
                page_limit=pages,
                passes_through=passes_through,
            )
            if heir is None
            else InheritedLane(adapter, device, ours, heir, threads=count, page_limit=pages)
        )
        log.debug("the fast lane answers, and %d threads copy", count)
        try:
            yield cls(lane, device)
        finally:
            lane.close()

    async def serve(self) -> None:
        """Answer requests until the kernel has released the mount."""
        async with trio.open_nursery() as relaying:
            relaying.start_soon(self._lane.relay)
            async with trio.open_nursery() as both:
                both.start_soon(partial(pyfuse3.main, min_tasks=_MIN_TASKS, max_tasks=_MAX_TASKS))
                await self._lane.run()
                pyfuse3.terminate()
            relaying.cancel_scope.cancel()

    def end(self) -> None:
        """Read no further request."""
        self._lane.end()


def libfuse_options(options: FuseOptions) -> set[str]:
    """The options for libfuse, one per word."""
    # Users who may write to the bucket must not make set-uid programs or devices. This is stated
    # rather than left to libfuse, whose own default a remount would lose.
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
