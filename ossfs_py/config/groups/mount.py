"""The mountpoint, and the options for the kernel."""

from typing import Annotated, Literal

from ossfs_py.config import units, values
from ossfs_py.config.groups.option import (
    MOUNT,
    AbsolutePath,
    Count,
    Flag,
    Moment,
    Size,
    argument,
    option,
)
from ossfs_py.config.model import SettingsModel


class MountSettings(SettingsModel):
    """Help group "Mount"."""

    mountpoint: AbsolutePath = argument("The directory to mount it at.")
    read_only: Flag = option(MOUNT, "", "Refuse every change.", default=False)
    at_ns: Moment | None = option(
        MOUNT,
        "TIME",
        "Mount the bucket read-only as it was at this time, such as 2026-11-20T10:00Z, or how "
        "long ago (3d); the bucket must keep versions.",
        default=None,
        shown_default="now",
    )
    protect: Annotated[tuple[Literal["delete", "overwrite", "rename"], ...], values.words] = option(
        MOUNT,
        "CHANGE[,CHANGE]",
        "Refuse these changes to stored objects with EPERM: delete, overwrite, rename. With all "
        "three, programs can only add files.",
        default=(),
        shown_default="none",
    )
    allow_other: Flag = option(MOUNT, "", "Let other users use the mount.", default=False)
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
        "Answer frequent requests without pyfuse3, where the kernel and libfuse allow it.",
        default="auto",
    )
    passthrough: Literal["auto", "off"] = option(
        MOUNT,
        "auto|off",
        "Let the kernel itself read files of more than 64 MiB that are whole and verified in the "
        "disk cache (read-only mounts of root with cache, from Linux 6.9 on; not with "
        "--restarts).",
        default="auto",
    )
    xattrs: Literal["on", "off"] = option(
        MOUNT,
        "on|off",
        "Extended attributes. With off the kernel asks for none.",
        default="on",
    )
    restarts: Count = option(
        MOUNT,
        "N",
        "How often within a minute the mount survives the death of its daemon: a small process "
        "starts it again, and open files stay usable (from Linux 6.9 on).",
        default=0,
        ge=0,
        le=1000,
    )
    keeper: AbsolutePath | None = option(
        MOUNT,
        "PATH",
        "The socket of 'ossfs-py keeper': the mount survives its whole container, and the next one "
        "takes it over (on the conditions of --restarts).",
        default=None,
        shown_default="none",
    )
    kernel_options: tuple[Literal["noexec", "nosuid", "nodev", "noatime"], ...] = argument(
        "Restrictions from -o that the kernel enforces.", default=()
    )
