"""What can be asked of a daemon about itself, besides its mount (``commands.py``)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ossfs_py.config import Settings
from ossfs_py.control import Arguments, Command, Progress


def service_commands(settings: Settings) -> dict[str, Command]:
    """Every command by its name."""
    return {"state": partial(_state, settings)}


async def _state(
    settings: Settings, _arguments: Arguments, _progress: Progress
) -> Mapping[str, Any]:
    return {"read_only": settings.read_only}
