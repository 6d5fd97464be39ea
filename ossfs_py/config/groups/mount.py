"""The mountpoint, and what the kernel is told of it."""

from typing import Literal

from pydantic import BaseModel, Field

from ossfs_py.config import units
from ossfs_py.config.groups.option import MOUNT, AbsolutePath, Flag, Size, option


class MountSettings(BaseModel):
    """Help group "Mount"."""

    mountpoint: AbsolutePath = Field(description="The directory to mount it at.")
    read_only: Flag = option(MOUNT, "", "Refuse every change.", default=False)
    allow_other: Flag = option(MOUNT, "", "Let other users see the mount.", default=False)
    nonempty: Flag = option(MOUNT, "", "Mount over a directory that is not empty.", default=False)
    readahead_bytes: Size = option(
        MOUNT,
        "SIZE",
        "How far the kernel reads ahead.",
        default=units.MIB,
        ge=128 * units.KIB,
        le=16 * units.MIB,
    )
    fuse_lane: Literal["auto", "off"] = option(
        MOUNT,
        "auto|off",
        "Answer what is asked most past pyfuse3, where kernel and libfuse allow it.",
        default="auto",
    )
    kernel_options: tuple[Literal["noexec", "nosuid", "nodev", "noatime"], ...] = Field(
        default=(), description="Restrictions from -o that the kernel enforces."
    )
