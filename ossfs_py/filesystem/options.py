"""Settings of a mount's file system."""

from dataclasses import dataclass, field

from ossfs_py.filesystem.commits import ConflictPolicy
from ossfs_py.filesystem.protection import Protected
from ossfs_py.filesystem.removals import COPIED_BYTES


@dataclass(frozen=True, slots=True)
class FilesystemOptions:
    """Settings of the file system itself.

    With ``passthrough`` the kernel may read files itself that are verified on local disk; only
    where nothing is written.
    ``trash_prefix`` is the prefix for copies of deleted and overwritten objects; "": none are kept.
    ``scratch_prefix`` is the prefix for copies of deleted but open objects, hidden from listings;
    objects of up to ``copied_bytes`` are copied at once.
    """

    read_only: bool = False
    protect: frozenset[Protected] = frozenset()
    record_writer: bool = False
    dedup: bool = False
    conflicts: ConflictPolicy = field(default_factory=ConflictPolicy)
    trash_prefix: str = ""
    passthrough: bool = False
    xattrs: bool = True
    scratch_prefix: str = ".ossfs-py-deleted-"
    copied_bytes: int = COPIED_BYTES
