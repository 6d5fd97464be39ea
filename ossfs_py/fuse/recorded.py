"""An adapter that writes the access log: the request, its subject, the caller and the result."""

import errno
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import pyfuse3

from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.replies import Absent
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.subjects import Subject
from ossfs_py.runtime.arrived import Written
from ossfs_py.telemetry.accesslog import AccessLog
from ossfs_py.telemetry.logformat import timestamp
from ossfs_py.telemetry.metrics import Metrics

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


def _recorded(handler: Handler) -> Handler:
    subject = Subject(handler)

    @functools.wraps(handler)
    async def answer(self: "RecordedAdapter", *args: Any) -> Any:
        # Before the handler runs: afterwards a handle or a name may be gone.
        about = {
            "path": subject.path(self.filesystem, args),
            **subject.details(self.filesystem, args),
        }
        began_at, began = time.time(), time.monotonic_ns()
        result = "cancelled"
        try:
            answered = await handler(self, *args)
            result = "ok"
            is_inode = not isinstance(answered, pyfuse3.EntryAttributes) or answered.st_ino
            if isinstance(answered, Absent) or not is_inode:
                result = "ENOENT"
            elif isinstance(answered, bytes | memoryview):
                about["bytes"] = len(answered)
        except pyfuse3.FUSEError as exc:
            result = errno.errorcode.get(exc.errno, str(exc.errno))
            raise
        finally:
            self.access_log.write(
                {
                    "time": timestamp(began_at),
                    "operation": subject.operation,
                    **about,
                    "result": result,
                    "microseconds": (time.monotonic_ns() - began) // 1000,
                }
            )
        return answered

    return cast(Handler, answer)


class RecordedAdapter(Adapter):
    """Every handler, with a line in the access log once it has ended."""

    def __init__(self, filesystem: Filesystem, metrics: Metrics, access: AccessLog) -> None:
        super().__init__(filesystem, metrics)
        self.filesystem = filesystem
        self.access_log = access
        self.at_once = {}  # every request has to go through a handler, for its line in the log

    def lacks_xattr(self, inode: int, name: bytes) -> None:
        """Unknown, for the same reason."""

    def lookup_known(self, parent_inode: int, name: bytes) -> None:
        """As :meth:`lacks_xattr`."""

    def getattr_known(self, inode: int) -> None:
        """As :meth:`lacks_xattr`."""

    def write_known(self, fh: int, off: int, data: Written) -> bool:  # noqa: ARG002
        """False, for the same reason."""
        return False

    def unlink_known(self, parent_inode: int, name: bytes) -> bool:  # noqa: ARG002
        """False, for the same reason."""
        return False

    def read_known(self, fh: int, off: int, size: int, began: float | None = None) -> None:
        """As :meth:`lacks_xattr`."""

    def ask(self, fh: int, off: int, size: int, then: Callable[[], None]) -> bool:  # noqa: ARG002
        """False, for the same reason."""
        return False

    lookup = _recorded(Adapter.lookup)
    getattr = _recorded(Adapter.getattr)
    setattr = _recorded(Adapter.setattr)
    readlink = _recorded(Adapter.readlink)
    mknod = _recorded(Adapter.mknod)
    mkdir = _recorded(Adapter.mkdir)
    unlink = _recorded(Adapter.unlink)
    rmdir = _recorded(Adapter.rmdir)
    symlink = _recorded(Adapter.symlink)
    rename = _recorded(Adapter.rename)
    link = _recorded(Adapter.link)
    open = _recorded(Adapter.open)
    read = _recorded(Adapter.read)
    write = _recorded(Adapter.write)
    copy_range = _recorded(Adapter.copy_range)
    flush = _recorded(Adapter.flush)
    fsync = _recorded(Adapter.fsync)
    release = _recorded(Adapter.release)
    opendir = _recorded(Adapter.opendir)
    readdir = _recorded(Adapter.readdir)
    releasedir = _recorded(Adapter.releasedir)
    fsyncdir = _recorded(Adapter.fsyncdir)
    statfs = _recorded(Adapter.statfs)
    getxattr = _recorded(Adapter.getxattr)
    listxattr = _recorded(Adapter.listxattr)
    setxattr = _recorded(Adapter.setxattr)
    removexattr = _recorded(Adapter.removexattr)
    create = _recorded(Adapter.create)
