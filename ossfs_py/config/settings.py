"""The one settings model. Command line options, ``-o`` names, environment variables and TOML keys
are all generated from its fields, and so is ``--help``."""

from ossfs_py.config.conflicts import CONFLICT_RULES
from ossfs_py.config.fields import SettingFields
from ossfs_py.config.model import Conflict

ARGUMENTS = {"bucket": "BUCKET", "mountpoint": "MOUNTPOINT"}
"""Fields that are positional arguments on the command line."""
NOT_OPTIONS = frozenset({*ARGUMENTS, "kernel_options"})


class Settings(SettingFields):
    """Everything one mount can be told. Immutable; every path is absolute."""

    def __init__(self, **values: object) -> None:
        if values.get("at_ns") is not None:
            values["read_only"] = True  # nobody changes the past
        super().__init__(**values)

    def conflicts(self) -> list[Conflict]:
        return [found for rule in CONFLICT_RULES for found in rule(self)]


def option_name(field: str) -> str:
    """How people write a field: ``cache_size_bytes`` is ``cache-size``."""
    for unit in ("_bytes", "_seconds", "_ns"):
        field = field.removesuffix(unit)
    return field.replace("_", "-")


def needs_no_value(field: str) -> bool:
    """Whether an option with a value means something without one, too."""
    return Settings.model_fields[field].metavar.startswith("[=")
