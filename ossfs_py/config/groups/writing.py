"""How written files become objects."""

import os
from typing import Annotated, Literal

from ossfs_py.config import machine as host
from ossfs_py.config import units, values
from ossfs_py.config.groups.option import WRITING, AbsolutePath, Flag, Size, option
from ossfs_py.config.model import SettingsModel


class WritingSettings(SettingsModel):
    """Help group "Writing"."""

    state_dir: AbsolutePath = option(
        WRITING,
        "DIR",
        "Where data that is not uploaded yet is kept; created if its parent exists.",
        default_factory=lambda: host.default_state_dir(os.environ),
        shown_default="/var/lib/ossfs-py, or ~/.local/state/ossfs-py",
    )
    write_back: Flag = option(
        WRITING,
        "",
        "Return from close, mkdir, symlink, unlink and rmdir when a journal on local disk has the"
        " change; upload in the background.",
        default=False,
    )
    max_zeros_bytes: Size = option(
        WRITING,
        "SIZE",
        "Maximum size of the holes of a sparse file, which are uploaded as zeros; close(2) of a "
        "file with more fails.",
        default=64 * units.GIB,
    )
    record_writer: Flag = option(
        WRITING,
        "",
        "Store with each file who wrote it, on which machine and when. Everybody who may read the "
        "object can see it ('info' and 'versions' show it).",
        default=False,
    )
    dedup: Flag = option(
        WRITING,
        "",
        "If the store has the same file under another name in the same directory, let it copy that "
        "file instead of uploading it ('ossfs-py docs operations' says what it costs).",
        default=False,
    )
    trash: Annotated[str | None, values.trash_prefix] = option(
        WRITING,
        "[=PREFIX]",
        "Before a file is deleted or overwritten through the mount, let the store copy it to a key "
        "below PREFIX, or to a hidden key ('ossfs-py trash' lists, restores and deletes copies).",
        default=None,
        shown_default="nothing is kept",
    )
    on_conflict: Literal["overwrite", "fail"] = option(
        WRITING,
        "overwrite|fail",
        "What close(2) does if another client has changed the object since it was opened.",
        default="overwrite",
    )
    storage_class: str | None = option(
        WRITING,
        "NAME",
        "Storage class of new objects; changed objects keep theirs.",
        default=None,
        shown_default="the bucket's",
    )
    acl: (
        Literal[
            "keep",
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ]
        | None
    ) = option(
        WRITING,
        "NAME",
        "Canned ACL of written objects, such as public-read, or 'keep' to keep the ACL of changed "
        "objects (one more request for each).",
        default=None,
        shown_default="the bucket's",
    )
    checksum: Literal["auto", "none", "crc32c", "md5"] = option(
        WRITING,
        "auto|none|crc32c|md5",
        "Checksum to send with uploads.",
        default="auto",
    )
    conditional_writes: Literal["auto", "on", "off"] = option(
        WRITING,
        "auto|on|off",
        "Whether the store supports conditional writes; auto tries it.",
        default="auto",
    )
    part_copy: Literal["auto", "on", "off"] = option(
        WRITING,
        "auto|on|off",
        "Whether the store can copy parts of objects; auto tries it.",
        default="auto",
    )
