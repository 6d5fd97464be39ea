"""The commands about a daemon itself, besides its mount (``mount_commands``)."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.telemetry.logs import Logs

log = logging.getLogger(__name__)


def service_commands(logs: Logs, *, read_only: bool) -> dict[str, Command]:
    """Every command by its name; ``read_only`` is what the mount is."""
    return {"state": partial(_state, read_only), "log-level": partial(_log_level, logs)}


async def _state(read_only: bool, _arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
    return {"read_only": read_only}


async def _log_level(logs: Logs, arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
    """Change the levels until the next SIGHUP or start, if any are given; tell them."""
    text = arguments.text("levels", "")
    if text:
        try:
            logs.set_levels(logs.levels.changed(text))
        except ValueError as exc:
            raise ControlError(str(exc)) from exc
        log.warning("log levels are %s now", logs.levels)
    return {"default": logs.levels.default, "areas": dict(logs.levels.areas)}
