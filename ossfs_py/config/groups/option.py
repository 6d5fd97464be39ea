"""The building blocks of fields: types that parse what people write, and the groups of the help."""

from pathlib import Path
from typing import Annotated, Any

from ossfs_py.config import units, values
from ossfs_py.config.model import Field

Size = Annotated[int, units.parse_size]
Duration = Annotated[float, units.parse_duration]
Mode = Annotated[int, units.parse_mode]
Flag = Annotated[bool, units.parse_flag]
Moment = Annotated[int, units.parse_moment]
Count = Annotated[int, units.parse_count]
AbsolutePath = Annotated[Path, values.absolute_path]


def option(
    group: str, metavar: str, description: str, *, shown_default: str | None = None, **field: Any
) -> Any:
    """A field that is an option: its help group, the placeholder of its value and its text."""
    return Field(description, group, metavar, shown_default, **field)


def argument(description: str, **field: Any) -> Any:
    """A field that is no option."""
    return Field(description, **field)


STORE, DATA, NAMES, WRITING, LIMITS, MOUNT, LOGS = (
    "Store and credentials",
    "Data path",
    "Names and attributes",
    "Writing",
    "Network and memory",
    "Mount",
    "Running",
)
GROUPS = (STORE, DATA, NAMES, WRITING, LIMITS, MOUNT, LOGS)
