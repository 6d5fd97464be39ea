"""The exception hierarchy and the one table from exceptions to errno.

Errno literals stand nowhere else. A layer raises the class that names the cause; the FUSE
adapter asks :func:`errno_of` and the command line asks :class:`UserError` for its exit code.
"""

import errno
import os
from dataclasses import dataclass

NOBODY_WAITS = os.strerror(errno.ENOENT)
"""The kernel's error for an answer whose program was killed, or whose mount is gone."""


class OssfsError(Exception):
    """Base of everything this package raises on purpose."""


# -- what a store can answer -------------------------------------------------------------------


class StoreError(OssfsError):
    """A store operation failed for good: retries, where they help, are used up.

    ``operation`` is the request's name (``GetObject``), ``request_id`` the store's own id for the
    last answer (empty when none came), ``attempts`` how often it was tried.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        key: str = "",
        request_id: str = "",
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.key = key
        self.request_id = request_id
        self.attempts = attempts

    def __str__(self) -> str:
        where = f"{self.operation} {self.key!r}: " if self.operation else ""
        ident = f" (request id {self.request_id})" if self.request_id else ""
        tries = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        return f"{where}{self.args[0]}{tries}{ident}"

    @property
    def fields(self) -> dict[str, str | int]:
        """The fields for programs that read logs."""
        return {
            "operation": self.operation,
            "key": self.key,
            "request_id": self.request_id,
            "attempts": self.attempts,
            "advice": self.advice,
        }

    advice = "read the store's message"
    """Advice for a person."""


class ObjectMissingError(StoreError):
    """No such key or upload. An answer to a HEAD leaves open whether there is the bucket."""

    advice = "check whether the key and the bucket still exist"


class BucketMissingError(StoreError):
    """No such bucket. That says of no key that it was deleted: the bucket may come back."""

    advice = "check whether the bucket still exists; unsaved data is kept (ossfs-py recover)"


class ListingFailedError(BucketMissingError):
    """The content of a directory is unknown, because its bucket does not exist.

    readdir(3) takes ENOENT for the end of the directory: a program that mirrors the tree would
    delete its copies of all files.
    """


class AccessDeniedError(StoreError):
    """The store refuses these credentials, or anonymous access, for this operation."""

    advice = "check the credentials and their rights on the bucket (ossfs-py doctor)"


class ArchivedError(AccessDeniedError):
    """The object is archived and must be restored before its bytes can be read."""

    advice = "restore the object at the store, then read it again"


class RetainedError(AccessDeniedError):
    """An object lock, a legal hold or a retention policy forbids everybody to remove or replace the
    object."""

    advice = "wait until the store allows it: 'ossfs-py info' shows the retention"


class VersionChangedError(StoreError):
    """The key no longer holds the pinned version."""

    advice = "open the file again to read the new version"


class SourceChangedError(StoreError):
    """The object that the store was to copy bytes from is another version now, or gone."""

    advice = "copy the file again"


class ConditionFailedError(StoreError):
    """A conditional write lost: the key exists, or holds another version than expected."""

    advice = (
        "another client wrote it meanwhile: read that version, or mount with "
        "--on-conflict overwrite"
    )


class MetadataTooLargeError(StoreError):
    """The store keeps less metadata with an object (Swift: 256 bytes a value)."""

    advice = "shorten the target of the symbolic link, or the extended attributes"


class QuotaExceededError(StoreError):
    """The store refuses to hold more for this account or bucket."""

    advice = "free space in the account or raise its quota; the data is kept until then"


class ObjectTooLargeError(StoreError):
    """The object would exceed what the store can hold."""

    advice = "write it in several files"


class UnsupportedByStoreError(StoreError):
    """The store does not implement the operation (NotImplemented, MethodNotAllowed)."""

    advice = "turn off --part-copy or --conditional-writes"


class UnequalPartsError(StoreError):
    """The store wants all parts of an upload but the last to be of one size, and none larger."""

    advice = "write it again: from now on all parts have one size"


class IntegrityError(StoreError):
    """The store has not kept the bytes that were sent."""

    advice = "write it again; if it happens often, suspect this machine's memory or a proxy"


class StoreUnavailableError(StoreError):
    """Transient failures (5xx, throttling, resets, stalls) outlasted the retry budget."""

    advice = (
        "check the store and the network (ossfs-py doctor); a longer "
        "--retry-budget bridges longer outages"
    )


# -- what a POSIX call can be told -------------------------------------------------------------


class FilesystemError(OssfsError):
    """A POSIX operation cannot be done; subclasses say why."""


class NoSuchEntryError(FilesystemError):
    """The path does not exist."""


class StaleInodeError(FilesystemError):
    """The inode is no longer known."""


class EntryExistsError(FilesystemError):
    """The name is taken."""


class NotADirectoryPathError(FilesystemError):
    """A directory was needed."""


class IsADirectoryPathError(FilesystemError):
    """A file was needed."""


class DirectoryNotEmptyError(FilesystemError):
    """The directory still has children."""


class NameTooLongError(FilesystemError):
    """A segment over 255 bytes or a key over 1,024 bytes."""


class IllegalNameError(FilesystemError):
    """The name is not UTF-8."""


class InvalidArgumentError(FilesystemError):
    """The call makes no sense (a directory moved into itself, a negative size)."""


class NotPermittedError(FilesystemError):
    """Object stores have no such thing (hard links, device nodes), or the caller may not."""


class ReadOnlyError(FilesystemError):
    """The mount is read-only."""


class BadHandleError(FilesystemError):
    """The handle is unknown or was opened without the needed access mode."""


class FileTooLargeError(FilesystemError):
    """The file would exceed the store's largest object."""


class OperationUnsupportedError(FilesystemError):
    """The mount does not offer this operation on this object."""


class NoAttributeError(FilesystemError):
    """No such extended attribute."""


class RangeTooLargeError(FilesystemError):
    """The value does not fit what the store keeps (metadata over 2 KiB)."""


class TooManyFilesError(FilesystemError):
    """As many files are open for writing as can be, without taking from readers."""


class CallInterruptedError(FilesystemError):
    """A signal ended the program that waited."""


class MountEndedError(FilesystemError):
    """The mount was taken down while a program waited."""


class UnsavedDataError(FilesystemError):
    """Dirty data could not be brought to the store; it is kept locally."""


# -- what a person can be told -----------------------------------------------------------------


class UserError(OssfsError):
    """One clear sentence for a person, and the exit code of the command."""

    exit_code = 1


class UsageError(UserError):
    """The command line, an option or a configuration file is wrong."""

    exit_code = 2


class EnvironmentProblemError(UserError):
    """The machine, the store, the credentials or the mountpoint is not as needed."""


@dataclass(frozen=True, slots=True)
class ErrnoRow:
    """One row of the table: exceptions of ``cause`` (and unlisted subclasses) mean ``code``."""

    cause: type[BaseException]
    code: int


ERRNO_TABLE: tuple[ErrnoRow, ...] = (
    ErrnoRow(ObjectMissingError, errno.ENOENT),
    ErrnoRow(BucketMissingError, errno.ENOENT),
    ErrnoRow(ListingFailedError, errno.EIO),
    ErrnoRow(AccessDeniedError, errno.EACCES),
    ErrnoRow(RetainedError, errno.EPERM),
    ErrnoRow(VersionChangedError, errno.ESTALE),
    ErrnoRow(SourceChangedError, errno.ESTALE),
    ErrnoRow(ConditionFailedError, errno.EEXIST),
    ErrnoRow(MetadataTooLargeError, errno.ENOSPC),
    ErrnoRow(QuotaExceededError, errno.EDQUOT),
    ErrnoRow(ObjectTooLargeError, errno.EFBIG),
    ErrnoRow(UnsupportedByStoreError, errno.EOPNOTSUPP),
    ErrnoRow(IntegrityError, errno.EIO),
    ErrnoRow(StoreUnavailableError, errno.EIO),
    ErrnoRow(StoreError, errno.EIO),
    ErrnoRow(NoSuchEntryError, errno.ENOENT),
    ErrnoRow(StaleInodeError, errno.ESTALE),
    ErrnoRow(EntryExistsError, errno.EEXIST),
    ErrnoRow(NotADirectoryPathError, errno.ENOTDIR),
    ErrnoRow(IsADirectoryPathError, errno.EISDIR),
    ErrnoRow(DirectoryNotEmptyError, errno.ENOTEMPTY),
    ErrnoRow(NameTooLongError, errno.ENAMETOOLONG),
    ErrnoRow(IllegalNameError, errno.EILSEQ),
    ErrnoRow(InvalidArgumentError, errno.EINVAL),
    ErrnoRow(NotPermittedError, errno.EPERM),
    ErrnoRow(ReadOnlyError, errno.EROFS),
    ErrnoRow(BadHandleError, errno.EBADF),
    ErrnoRow(FileTooLargeError, errno.EFBIG),
    ErrnoRow(OperationUnsupportedError, errno.EOPNOTSUPP),
    ErrnoRow(NoAttributeError, errno.ENODATA),
    ErrnoRow(RangeTooLargeError, errno.E2BIG),
    ErrnoRow(TooManyFilesError, errno.ENFILE),
    ErrnoRow(UnsavedDataError, errno.EIO),
    ErrnoRow(CallInterruptedError, errno.EINTR),
    ErrnoRow(MountEndedError, errno.EIO),
)

_CODES = {row.cause: row.code for row in ERRNO_TABLE}

# A local file operation that fails for lack of room is told as it is; every other OSError of our
# own files is an internal failure that the program can only see as EIO.
_LOCAL_CODES_PASSED_ON = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def errno_of(exc: BaseException) -> int:
    """The errno a program sees for ``exc``; EIO for anything the table does not know."""
    if isinstance(exc, OSError):
        return exc.errno if exc.errno in _LOCAL_CODES_PASSED_ON else errno.EIO
    for cls in type(exc).__mro__:
        code = _CODES.get(cls)
        if code is not None:
            return code
    return errno.EIO


def disk_full(why: str) -> OSError:
    """The errors of a file operation that needs space reserved for others."""
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {why}")


def is_disk_full(exc: OSError) -> bool:
    """Whether a local file operation failed for lack of room."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


def is_dead_mount(exc: OSError) -> bool:
    """Whether a path could not be reached because the daemon of its FUSE mount is gone.

    ECONNABORTED is the answer to a request that waits at the moment when the daemon goes.
    """
    return exc.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def is_refused(exc: OSError) -> bool:
    """Whether this user may not do what was tried."""
    return exc.errno in (errno.EACCES, errno.EPERM)


NO_ROOM_FOR_VALUE = errno.ERANGE
"""The answer to a program that offers less space than an extended attribute has bytes."""

UNKNOWN_REQUEST = errno.ENOSYS
"""The answer to a request that the kernel need not send again."""

COPY_YOURSELF = errno.EOPNOTSUPP
"""The answer that makes the kernel read and write the bytes of one copy itself."""

UNINTELLIGIBLE = errno.EIO
"""The answer to a request that cannot be parsed."""


def is_mount_gone(exc: OSError) -> bool:
    """Whether the error means the end of the kernel's descriptor: the kernel has closed the mount.

    When the connection ends while a request is read, the error is ECONNABORTED instead of ENODEV.
    """
    return exc.errno in (errno.ENODEV, errno.ECONNABORTED)


def is_withdrawn(exc: OSError) -> bool:
    """Whether nobody waits any more for a request or its answer: its program was killed."""
    return exc.errno == errno.ENOENT
