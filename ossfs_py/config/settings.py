"""The one settings model. Command line options, ``-o`` names, environment variables and TOML keys
are all generated from its fields, and so is ``--help``."""

from collections.abc import Mapping
from typing import Self

from pydantic import ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ossfs_py.config.conflicts import CONFLICT, CONFLICT_RULES
from ossfs_py.config.groups.data import DataSettings
from ossfs_py.config.groups.limits import LimitSettings
from ossfs_py.config.groups.mount import MountSettings
from ossfs_py.config.groups.names import NameSettings
from ossfs_py.config.groups.running import RunningSettings
from ossfs_py.config.groups.store import StoreSettings
from ossfs_py.config.groups.writing import WritingSettings

ARGUMENTS = {"bucket": "BUCKET", "mountpoint": "MOUNTPOINT"}
"""Fields that are positional arguments on the command line."""
TRASH = ".ossfs-py-trash/"
"""Where copies are kept unless something else is said, below the mounted prefix: names that begin
so are the mount's own, and nobody sees them."""
NOT_OPTIONS = frozenset({*ARGUMENTS, "kernel_options"})


# pydantic takes the fields of the last base first.
class Settings(
    RunningSettings,
    MountSettings,
    LimitSettings,
    WritingSettings,
    NameSettings,
    DataSettings,
    StoreSettings,
):
    """Everything one mount can be told. Immutable; every path is absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @property
    def source(self) -> str:
        """``bucket`` or ``bucket/prefix``, as mount tables and messages show it."""
        return f"{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def trash_prefix(self) -> str:
        """Below which keys copies are kept, or would be."""
        return self.trash or f"{self.prefix}{TRASH}"

    @property
    def effective_file_mode(self) -> int:
        """Permission bits of files without a stored mode, the umask applied."""
        return _masked(self.file_mode, 0o666, self.umask)

    @property
    def effective_dir_mode(self) -> int:
        """Permission bits of directories without a stored mode, the umask applied."""
        return _masked(self.dir_mode, 0o777, self.umask)

    @model_validator(mode="before")
    @classmethod
    def _nobody_changes_the_past(cls, values: dict[str, object]) -> dict[str, object]:
        if values.get("at_ns") is None:
            return values
        return {**values, "read_only": True}

    @model_validator(mode="after")
    def _refuse_impossible_combinations(self) -> Self:
        conflicts = [c for rule in CONFLICT_RULES for c in rule(self)]
        if conflicts:
            raise PydanticCustomError(
                CONFLICT,
                "impossible combination of {names}",
                {
                    "conflicts": conflicts,
                    "names": "; ".join(" and ".join(fields) for fields, _ in conflicts),
                },
            )
        return self


def _masked(mode: int | None, default: int, umask: int | None) -> int:
    if mode is None:
        return default & ~(0o022 if umask is None else umask)
    return mode & ~(umask or 0)


def option_name(field: str) -> str:
    """How people write a field: ``cache_size_bytes`` is ``cache-size``."""
    for unit in ("_bytes", "_seconds", "_ns"):
        field = field.removesuffix(unit)
    return field.replace("_", "-")


def needs_no_value(field: str) -> bool:
    """Whether an option with a value means something without one, too."""
    return str(option_extra(field).get("metavar")).startswith("[=")


def option_extra(field: str) -> Mapping[str, str]:
    """Help group, placeholder and shown default of an option."""
    extra = Settings.model_fields[field].json_schema_extra
    return extra if isinstance(extra, dict) else {}  # type: ignore[return-value]
