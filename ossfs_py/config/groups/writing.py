"""What is written, and how it becomes an object."""

import os
from typing import Literal

from pydantic import BaseModel

from ossfs_py.config import machine as host
from ossfs_py.config import units
from ossfs_py.config.groups.option import WRITING, AbsolutePath, Flag, Size, option


class WritingSettings(BaseModel):
    """Help group "Writing"."""

    state_dir: AbsolutePath = option(
        WRITING,
        "DIR",
        "Where data not yet uploaded is kept safe; made when its parent exists.",
        default_factory=lambda: host.default_state_dir(os.environ),
        shown_default="/var/lib/ossfs-py, or ~/.local/state/ossfs-py",
    )
    write_back: Flag = option(
        WRITING,
        "",
        "Let close, mkdir, symlink, unlink and rmdir return once a journal on disk has them.",
        default=False,
    )
    max_zeros_bytes: Size = option(
        WRITING,
        "SIZE",
        "Bytes of a sparse file that nobody wrote: with more of them, close(2) fails before it "
        "sends them as zeros.",
        default=64 * units.GIB,
    )
    record_writer: Flag = option(
        WRITING,
        "",
        "Store with each file who wrote it, on which machine and when, for everybody who may read"
        " the object ('info' and 'versions' show it).",
        default=False,
    )
    on_conflict: Literal["overwrite", "fail"] = option(
        WRITING,
        "overwrite|fail",
        "What close(2) does when the object changed behind the writer.",
        default="overwrite",
    )
    storage_class: str | None = option(
        WRITING,
        "NAME",
        "Storage class of new objects; changed ones keep theirs.",
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
        "Who may use the objects that are written: a canned ACL such as public-read, or 'keep' for "
        "what held before, which costs one more request for each object that is changed.",
        default=None,
        shown_default="the bucket's",
    )
    checksum: Literal["auto", "none", "crc32c", "md5"] = option(
        WRITING,
        "auto|none|crc32c|md5",
        "Checksum sent along with uploads.",
        default="auto",
    )
    conditional_writes: Literal["auto", "on", "off"] = option(
        WRITING,
        "auto|on|off",
        "Whether the store can refuse to overwrite; auto tries it out.",
        default="auto",
    )
    part_copy: Literal["auto", "on", "off"] = option(
        WRITING,
        "auto|on|off",
        "Whether the store can copy parts of objects; auto tries it out.",
        default="auto",
    )
