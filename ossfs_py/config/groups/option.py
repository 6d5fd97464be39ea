"""What fields are made of: types that parse what people write, and the groups of the help."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.config import JsonDict

from ossfs_py.config import units, values

Size = Annotated[int, BeforeValidator(units.parse_size)]
Duration = Annotated[float, BeforeValidator(units.parse_duration)]
Mode = Annotated[int, BeforeValidator(units.parse_mode)]
Flag = Annotated[bool, BeforeValidator(units.parse_flag)]
Moment = Annotated[int, BeforeValidator(units.parse_moment)]
Count = Annotated[int, BeforeValidator(units.parse_count)]
AbsolutePath = Annotated[Path, BeforeValidator(values.absolute_path)]


def option(
    group: str, metavar: str, description: str, *, shown_default: str | None = None, **field: Any
) -> Any:
    """A field that is an option: its help group, the placeholder of its value and its text."""
    extra: JsonDict = {"group": group, "metavar": metavar, "shown_default": shown_default}
    return Field(description=description, json_schema_extra=extra, **field)


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
