"""Names, attributes, and how long they are believed."""

import os
from typing import Annotated

from ossfs_py.config import values
from ossfs_py.config.groups.option import NAMES, Duration, Flag, Mode, option
from ossfs_py.config.model import SettingsModel


class NameSettings(SettingsModel):
    """Help group "Names and attributes"."""

    metadata_ttl_seconds: Duration = option(
        NAMES,
        "DURATION",
        "How long to trust attributes and listings; 0 asks every time.",
        default=60.0,
    )
    negative_ttl_seconds: Duration = option(
        NAMES,
        "DURATION",
        "How long the negative cache remembers that a name does not exist; 0 asks every time.",
        default=1.0,
    )
    posix_metadata: Flag = option(
        NAMES,
        "",
        "Ask each object for its stored mode, owner and times (for git, rsync, tar).",
        default=False,
    )
    uid: Annotated[int, values.user_id] = option(
        NAMES,
        "USER",
        "Owner of files without a stored owner.",
        default_factory=os.geteuid,
        shown_default="the user who mounts",
    )
    gid: Annotated[int, values.group_id] = option(
        NAMES,
        "GROUP",
        "Group of files without a stored group.",
        default_factory=os.getegid,
        shown_default="the user who mounts",
    )
    file_mode: Mode | None = option(
        NAMES,
        "MODE",
        "Mode of files without a stored mode.",
        default=None,
        le=0o777,
        shown_default="0644",
    )
    dir_mode: Mode | None = option(
        NAMES,
        "MODE",
        "Mode of directories without a stored mode.",
        default=None,
        le=0o3777,
        shown_default="0755",
    )
    umask: Mode | None = option(
        NAMES,
        "MODE",
        "Permission bits to remove from both modes.",
        default=None,
        le=0o777,
        shown_default="0022 for the default modes",
    )
    trust_default_modes: Flag = option(
        NAMES,
        "",
        "With --allow-other: let others use files by their default modes, without asking each "
        "object for its stored mode.",
        default=False,
    )
    special_modes: Flag = option(
        NAMES,
        "",
        "Show the set-user-ID, set-group-ID and sticky bits stored with files (root only).",
        default=False,
    )
