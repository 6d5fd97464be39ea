"""Turns pyfuse3 requests into :class:`Filesystem` calls, by one line a handler if possible.

Only this module raises ``FUSEError``: a handler's exception becomes the errno of the table. An
unexpected one becomes EIO with a logged traceback, never the end of the mount.
"""

import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from errno import errorcode
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import pyfuse3
import trio

from ossfs_py.errors import (
    UNKNOWN_REQUEST,
    ConditionFailedError,
    FilesystemError,
    InvalidArgumentError,
    NoSuchEntryError,
    NotPermittedError,
    ObjectMissingError,
    OssfsError,
    StoreError,
    errno_of,
)
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.replies import Absent, EntryReply, OpenReply
from ossfs_py.fuse.atonce import AnswersAtOnce
from ossfs_py.fuse.callers import Callers
from ossfs_py.fuse.ending import EndableReads
from ossfs_py.fuse.forpyfuse3 import (
    PREFERRED_IO_BYTES,
    absence_of,
    asked_for,
    entry_of,
    file_info_of,
    fill,
)
from ossfs_py.fuse.repeats import FailedReads
from ossfs_py.fuse.subjects import Subject
from ossfs_py.fuse.wire import Caller, DirectoryAnswer, Wish
from ossfs_py.host.processes import ProcessTable
from ossfs_py.model import AttributeChange
from ossfs_py.runtime.arrived import Written
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.runtime.scattered import Answer, Scattered
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_HUGE = 1 << 40
"""A bucket has no size; df shows a petabyte of 1 KiB blocks, all free."""


def _unwrapped(exc: Exception) -> BaseException:
    inner: BaseException = exc
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner


def _answered(
    handler: Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]]:
    subject = Subject(handler)

    @functools.wraps(handler)
    async def answer(self: "Adapter", *args: P.args, **kwargs: P.kwargs) -> R:
        began = perf_counter()
        try:
            return await handler(self, *args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - one request fails, the mount lives on
            raise self.refusal(subject, args, exc) from None
        finally:
            self.timings.add_since(began, handler.__name__)

    return cast(Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]], answer)


def _carried_out(
    handler: Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]],
    is_prompt: Callable[..., bool] = lambda *_args: False,
) -> Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]]:
    """The call is answered, and finished even if pyfuse3 cancels its tasks.

    A change of the bucket must be known here as done, or it is taken for another writer's. A call
    that waits for nothing cannot be cancelled: ``is_prompt`` saves it the scope, 5 us at the least.
    """

    @functools.wraps(handler)
    async def carry_out(self: "Adapter", *args: P.args, **kwargs: P.kwargs) -> R:
        if is_prompt(self, *args):
            return await handler(self, *args, **kwargs)
        with trio.CancelScope(shield=True):
            result = await handler(self, *args, **kwargs)
        return result  # noqa: RET504 - mypy takes the scope for one that may swallow

    return _answered(cast(Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]], carry_out))


def _carried_out_if_it_waits(
    is_prompt: Callable[..., bool],
) -> Callable[
    [Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]]],
    Callable[Concatenate["Adapter", P], Coroutine[Any, Any, R]],
]:
    return functools.partial(_carried_out, is_prompt=is_prompt)


class Adapter(pyfuse3.Operations):
    """The handlers of one mount."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(self, filesystem: Filesystem, metrics: Metrics) -> None:
        super().__init__()
        self._fs = filesystem
        self.answers_lane = False
        """Whether the lane asks for names and attributes: it takes replies as they are, while
        pyfuse3 takes only its own type.
        """
        self.timings = metrics.operations
        self._errors = metrics.operation_errors.values
        self._failures = metrics.handler_failures
        self.callers = Callers(ProcessTable())
        self.begun = trio.Event()
        """Set while libfuse answers INIT: a task that waits for it continues after the answer."""
        self.reads = EndableReads()
        self._failed_reads = FailedReads()
        self.at_once = AnswersAtOnce(filesystem.at_once, self, PREFERRED_IO_BYTES).by_opcode
        """What the lane may answer without a handler, by opcode."""

    def init(self) -> None:
        """pyfuse3 calls this on the trio thread, and then sends the answer to INIT at once."""
        self.begun.set()

    def refusal(
        self, subject: Subject, arguments: Sequence[Any], exc: Exception, *, is_known: bool = False
    ) -> pyfuse3.FUSEError:
        """The errno for an exception, logged by its severity; less so if it was just logged."""
        cause = _unwrapped(exc)
        if isinstance(cause, pyfuse3.FUSEError):
            return cause
        code = errno_of(cause)
        self._errors[subject.operation, errorcode.get(code, str(code))] += 1
        if isinstance(cause, FilesystemError):
            log.debug("%s: %s", subject.operation, cause)
            return pyfuse3.FUSEError(code)
        path = subject.path(self._fs, arguments)
        about: dict[str, Any] = {"operation": subject.operation, "path": path}
        if isinstance(cause, StoreError):
            level = logging.INFO if is_known else _store_level(cause)
            log.log(level, "%s of %r failed: %s", subject.operation, path, cause, extra=about)
        elif isinstance(cause, OSError | OssfsError):
            level = logging.INFO if is_known else logging.ERROR
            log.log(level, "%s of %r failed: %s", subject.operation, path, cause, extra=about)
        else:
            self._failures.inc()
            log.error(
                "%s of %r failed unexpectedly",
                subject.operation,
                path,
                exc_info=cause,
                extra=about,
            )
        return pyfuse3.FUSEError(code)

    # -- attributes -----------------------------------------------------------------------------

    @_answered
    async def lookup(  # type: ignore[override]
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext | Caller
    ) -> pyfuse3.EntryAttributes | EntryReply | Absent:
        try:
            reply = await self._fs.lookup(parent_inode, name)
            return reply if self.answers_lane else entry_of(reply)
        except NoSuchEntryError:
            seconds = self._fs.absent_seconds(parent_inode, name)
            if not seconds:
                raise
        self._errors["lookup", "ENOENT"] += 1
        return Absent(seconds) if self.answers_lane else absence_of(seconds)

    def lookup_known(self, parent_inode: int, name: bytes) -> EntryReply | float | None:
        """The answer to a LOOKUP that needs no handler, or for how many seconds the kernel may
        cache that the name is absent; None if a handler has to find it out.
        """
        began = perf_counter()
        reply = self._fs.replies.lookup_nowait(parent_inode, name)
        if reply is None:
            return None
        if isinstance(reply, float):
            self._errors["lookup", "ENOENT"] += 1
        self.timings.add_since(began, "lookup")
        return reply

    def getattr_known(self, inode: int) -> EntryReply | None:
        """As :meth:`lookup_known`, for GETATTR."""
        began = perf_counter()
        reply = self._fs.replies.attributes_nowait(inode)
        if reply is not None:
            self.timings.add_since(began, "getattr")
        return reply

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._fs.forget(inode_list)

    def forgotten(self, references: Sequence[tuple[int, int]]) -> None:
        """As :meth:`forget`, which never waits: rm makes the kernel send one for each file."""
        self._fs.forget(references)

    @_answered
    async def getattr(  # type: ignore[override]
        self, inode: int, ctx: pyfuse3.RequestContext | Caller
    ) -> pyfuse3.EntryAttributes | EntryReply:
        reply = await self._fs.attributes(inode)
        return reply if self.answers_lane else entry_of(reply)

    @_carried_out_if_it_waits(lambda self, inode, *_: self._fs.promptness.of_inode(inode))
    async def setattr(  # type: ignore[override]
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes | Wish,
        fields: pyfuse3.SetattrFields | None,
        fh: int | None,
        ctx: pyfuse3.RequestContext | Caller,
    ) -> pyfuse3.EntryAttributes | EntryReply:
        change, size = asked_for(attr, fields)
        if size is not None:
            # truncate(2) also asks for the time of the change; writing that is no utimens(2).
            change = AttributeChange(mode=change.mode, uid=change.uid, gid=change.gid)
        reply = await self._fs.set_attributes(inode, change, size, fh)
        return reply if self.answers_lane else entry_of(reply)

    def mode_without_rights(self, inode: int) -> int | None:
        """See :meth:`Filesystem.mode_without_rights`; None also for an unknown inode."""
        try:
            return self._fs.mode_without_rights(inode)
        except FilesystemError:
            return None  # the change itself gets the error

    @_carried_out
    async def take_rights(self, fh: int) -> None:
        """The caller changes the file and may not keep set-id bits; only the lane is told."""
        await self._fs.take_rights(fh)

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return True  # default_permissions: the kernel has checked

    # -- names ----------------------------------------------------------------------------------

    @_carried_out_if_it_waits(
        lambda self, parent, name, *_: self._fs.promptness.of_new_directory(parent, name)
    )
    async def mkdir(  # type: ignore[override]
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext | Caller
    ) -> pyfuse3.EntryAttributes | EntryReply:
        made = await self._fs.make_directory(
            parent_inode, name, stat.S_IMODE(mode & ~ctx.umask), ctx.uid, ctx.gid
        )
        return made if isinstance(ctx, Caller) else entry_of(made)

    @_carried_out
    async def rmdir(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext | Caller
    ) -> None:
        await self._fs.remove_directory(parent_inode, name)

    @_carried_out
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        made = await self._fs.make_node(parent_inode, name, mode & ~ctx.umask, ctx.uid, ctx.gid)
        return entry_of(made)

    @_carried_out
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        made = await self._fs.make_symlink(parent_inode, name, target, ctx.uid, ctx.gid)
        return entry_of(made)

    @_answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext | Caller) -> bytes:
        return await self._fs.read_link(inode)

    @_answered
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise NotPermittedError("an object has one name: there are no hard links")

    @_carried_out_if_it_waits(
        lambda self, parent, name, _: self._fs.promptness.of_removal(parent, name)
    )
    async def unlink(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext | Caller
    ) -> None:
        await self._fs.unlink(parent_inode, name)

    def unlink_known(self, parent_inode: int, name: bytes) -> bool:
        """Remove a name at once; False: nothing has happened, and :meth:`unlink` has to."""
        began = perf_counter()
        try:
            is_gone = self._fs.unlinking.unlink_nowait(parent_inode, name)
        except Exception as exc:  # noqa: BLE001 - one request fails, the mount lives on
            raise self.refusal(_UNLINK, (parent_inode, name), exc) from None
        if is_gone:
            self.timings.add_since(began, "unlink")
        return is_gone

    @staticmethod
    def check_rename(flags: int) -> None:
        """Raises InvalidArgumentError for flags that no rename here supports."""
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise InvalidArgumentError("two objects cannot be exchanged in one step")

    @_carried_out
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        self.check_rename(flags)
        await self._fs.rename(
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            no_replace=bool(flags & pyfuse3.RENAME_NOREPLACE),
        )

    # -- files ----------------------------------------------------------------------------------

    @_answered
    async def open(  # type: ignore[override]
        self, inode: int, flags: int, ctx: pyfuse3.RequestContext | Caller
    ) -> pyfuse3.FileInfo | OpenReply:
        reply = await self._fs.open(inode, flags, ctx.uid)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self.callers.opened(reply.handle, ctx.pid)
        return reply if self.answers_lane else file_info_of(reply)

    @_carried_out_if_it_waits(
        lambda self, parent, name, *_: self._fs.promptness.of_name(parent, name)
    )
    async def create(  # type: ignore[override]
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext | Caller,
    ) -> tuple[pyfuse3.FileInfo | OpenReply, pyfuse3.EntryAttributes | EntryReply]:
        opened, entry = await self._fs.create(
            parent_inode, name, stat.S_IMODE(mode & ~ctx.umask), flags, ctx.uid, ctx.gid
        )
        self.callers.opened(opened.handle, ctx.pid)
        if self.answers_lane:
            return opened, entry
        return file_info_of(opened), entry_of(entry)

    def ask(self, fh: int, off: int, size: int, then: Callable[[], None]) -> bool:
        """Have bytes fetched, and ``then`` called once, when :meth:`read_known` has them or
        :meth:`read` the error; False: nothing has happened.
        """
        try:
            return self._fs.ask(fh, off, size, then)
        except Exception:  # noqa: BLE001 - read() meets it again, and reports it
            return False

    def read_known(self, fh: int, off: int, size: int, began: float | None = None) -> Answer | None:
        """Bytes in memory; None: nothing has happened, and :meth:`read` has to be called."""
        began = began or perf_counter()
        try:
            data = self._fs.read_nowait(fh, off, size)
        except Exception:  # noqa: BLE001 - read() meets it again, and reports it
            return None
        if data is not None:
            self.timings.add_since(began, "read")
        return data

    async def read(self, fh: int, off: int, size: int) -> memoryview | bytes:  # type: ignore[override]
        # A frequent handler needs no wrapper. pyfuse3 has not asked for what is known.
        began = perf_counter()
        try:
            data = self._fs.read_nowait(fh, off, size)
            if data is not None:
                return bytes(data) if isinstance(data, Scattered) else data
            return await self.reads.waited_for(self._fs.read(fh, off, size))
        except Exception as exc:  # noqa: BLE001 - one request fails, the mount lives on
            known = self._failed_reads.is_repeat(fh, off, size, began, perf_counter())
            raise self.refusal(_READ, (fh, off, size), exc, is_known=known) from None
        finally:
            self.timings.add_since(began, "read")

    @_carried_out_if_it_waits(lambda self, fh, *_: self._fs.promptness.of_handle(fh))
    async def write(self, fh: int, off: int, buf: Written) -> int:
        return await self._fs.write(fh, off, buf)

    def write_known(self, fh: int, off: int, data: Written) -> bool:
        """Write what waits for nothing; False: nothing has happened, and :meth:`write` has to."""
        began = perf_counter()
        try:
            if not self._fs.promptness.write(fh, off, data):
                return False
        except Exception as exc:  # noqa: BLE001 - one request fails, the mount lives on
            raise self.refusal(_WRITE, (fh, off, data), exc) from None
        self.timings.add_since(began, "write")
        return True

    def room_to_land(self, size: int) -> Buffer | None:
        """Memory for bytes that a program is about to write, which may be kept there."""
        return self._fs.promptness.room_to_land(size)

    @_carried_out
    async def copy_range(self, fh: int, off: int, source: int, source_off: int, size: int) -> int:
        """copy_file_range(2): only the lane gets it, pyfuse3 never does; 0: not possible here."""
        copied = 0

        async def copy(target: int) -> None:
            nonlocal copied
            copied = await self._fs.copy_range(target, off, source, source_off, size)

        await self.callers.waited_for(fh, copy)
        return copied

    @_answered
    async def flush(self, fh: int) -> None:
        if self._fs.promptness.of_handle(fh):
            await self._fs.flush(fh)  # no program waits long enough to be killed meanwhile
            return
        with trio.CancelScope(shield=True):
            await self.callers.waited_for(fh, self._fs.flush)

    @_carried_out
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.callers.waited_for(fh, self._fs.fsync)

    @_answered
    async def release(self, fh: int) -> None:
        self.callers.released(fh)
        if self._fs.only_reads(fh) or self._fs.promptness.of_handle(fh):
            await self._fs.release(fh)  # changes nothing, or does not wait
            return
        with trio.CancelScope(shield=True):
            await self._fs.release(fh)

    # -- directories ----------------------------------------------------------------------------

    @_answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext | Caller) -> int:
        return self._fs.open_directory(inode)

    @_answered
    async def readdir(
        self, fh: int, start_id: int, token: pyfuse3.ReaddirToken | DirectoryAnswer
    ) -> None:
        if isinstance(token, DirectoryAnswer):
            await self._fs.read_directory(fh, start_id, token)
            return
        # One object serves all replies, as each is copied into the answer at once.
        attributes = pyfuse3.EntryAttributes()

        def take(name: bytes, entry: EntryReply, following: int) -> bool:
            fill(attributes, entry)
            return pyfuse3.readdir_reply(token, name, attributes, following)

        await self._fs.read_directory(fh, start_id, take)

    @_answered
    async def releasedir(self, fh: int) -> None:
        self._fs.release_directory(fh)

    @_answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Does nothing: names are stored when their call has returned."""

    # -- the rest -------------------------------------------------------------------------------

    @_answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = PREFERRED_IO_BYTES
        data.f_frsize = 1024
        data.f_blocks = data.f_bfree = data.f_bavail = _HUGE
        data.f_files = data.f_ffree = data.f_favail = _HUGE
        data.f_namemax = 255
        return data

    @_answered
    async def getxattr(
        self, inode: int, name: bytes, ctx: pyfuse3.RequestContext | Caller
    ) -> bytes:
        self._require_xattrs()
        return await self._fs.get_xattr(inode, name)

    @_answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext | Caller) -> Sequence[bytes]:
        self._require_xattrs()
        return await self._fs.list_xattrs(inode)

    def lacks_xattr(self, inode: int, name: bytes) -> int | None:
        """The errno for an attribute that no file has, without a handler: some programs ask for
        labels and lists of rights of each file. None: a handler has to find out.
        """
        began = perf_counter()
        missing = self._fs.lacks_xattr(inode, name)
        if missing is None:
            return None
        code = errno_of(missing)
        self._errors["getxattr", errorcode[code]] += 1
        self.timings.add_since(began, "getxattr")
        return code

    def _require_xattrs(self) -> None:
        """Raises FUSEError if there are no extended attributes; the kernel sends no more requests
        then.

        ``ls -l`` makes it send two for each name: for an ACL and a label.
        """
        if not self._fs.has_xattrs:
            raise pyfuse3.FUSEError(UNKNOWN_REQUEST)

    @_carried_out
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        self._require_xattrs()
        await self._fs.set_xattr(inode, name, value)

    @_carried_out
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._require_xattrs()
        await self._fs.remove_xattr(inode, name)


_READ = Subject(Adapter.read)
_WRITE = Subject(Adapter.write)
_UNLINK = Subject(Adapter.unlink)


def _store_level(exc: StoreError) -> int:
    """Absence is a normal answer; every other error is a problem."""
    ordinary = isinstance(exc, ObjectMissingError | ConditionFailedError)
    return logging.INFO if ordinary else logging.ERROR
