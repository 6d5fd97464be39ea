"""Names, attributes, and how long they are believed."""

import os
from typing import Annotated

from pydantic import BaseModel, BeforeValidator

from ossfs_py.config import values
from ossfs_py.config.groups.option import NAMES, Duration, Flag, Mode, option


class NameSettings(BaseModel):
    """Help group "Names and attributes"."""

    metadata_ttl_seconds: Duration = option(
        NAMES,
        "DURATION",
        "How long attributes and listings are trusted; 0 asks every time.",
        default=60.0,
    )
    negative_ttl_seconds: Duration = option(
        NAMES,
        "DURATION",
        "How long a name may be taken for absent after a look at it, or at its directory; 0 asks"
        " every time.",
        default=1.0,
    )
    posix_metadata: Flag = option(
        NAMES,
        "",
        "Ask every object for stored modes, owners and times (for git, rsync, tar).",
        default=False,
    )
    uid: Annotated[int, BeforeValidator(values.user_id)] = option(
        NAMES,
        "USER",
        "Owner of what has no stored owner.",
        default_factory=os.geteuid,
        shown_default="who mounts",
    )
    gid: Annotated[int, BeforeValidator(values.group_id)] = option(
        NAMES,
        "GROUP",
        "Group of what has no stored group.",
        default_factory=os.getegid,
        shown_default="who mounts",
    )
    file_mode: Mode | None = option(
        NAMES,
        "MODE",
        "Mode of files without a stored one.",
        default=None,
        le=0o777,
        shown_default="0644",
    )
    dir_mode: Mode | None = option(
        NAMES,
        "MODE",
        "Mode of directories without a stored one.",
        default=None,
        le=0o3777,
        shown_default="0755",
    )
    umask: Mode | None = option(
        NAMES,
        "MODE",
        "Permission bits taken from both modes.",
        default=None,
        le=0o777,
        shown_default="0022 for the default modes",
    )
    trust_default_modes: Flag = option(
        NAMES,
        "",
        "With --allow-other: let others use what was listed by the default modes, without asking"
        " the objects for their own.",
        default=False,
    )
    special_modes: Flag = option(
        NAMES,
        "",
        "Show the set-user-ID, set-group-ID and sticky bits stored with files (root only).",
        default=False,
    )
