"""The one settings model. Command line options, ``-o`` names, environment variables and TOML keys
are all generated from its fields, and so is ``--help``."""

from collections.abc import Mapping
from typing import Self

from pydantic import ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ossfs_py.config.conflicts import CONFLICT, CONFLICT_RULES
from ossfs_py.config.fields import SettingFields

ARGUMENTS = {"bucket": "BUCKET", "mountpoint": "MOUNTPOINT"}
"""Fields that are positional arguments on the command line."""
NOT_OPTIONS = frozenset({*ARGUMENTS, "kernel_options"})


class Settings(SettingFields):
    """Everything one mount can be told. Immutable; every path is absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

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
