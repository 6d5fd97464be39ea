"""How the daemon reports: logs and metrics."""

from typing import Annotated, Literal

from ossfs_py.config import units, values
from ossfs_py.config.groups.option import LOGS, AbsolutePath, Flag, Size, option
from ossfs_py.config.model import SettingsModel
from ossfs_py.telemetry.loglevels import AREAS, LogLevels, parse_levels


class RunningSettings(SettingsModel):
    """Help group "Running"."""

    foreground: Flag = option(
        LOGS, "", "Stay in the foreground, and log to standard error.", default=False
    )
    log_level: Annotated[LogLevels, parse_levels] = option(
        LOGS,
        "LEVEL[,AREA=LEVEL]",
        "Minimum severity of messages (debug, info, warning, error), for all areas or for one"
        f" ({', '.join(AREAS)}).",
        default=LogLevels(),
    )
    log_file: AbsolutePath | None = option(
        LOGS,
        "FILE",
        "Log to this file; SIGHUP reopens it.",
        default=None,
        shown_default="syslog, or ossfs-py.log in the state directory",
    )
    log_format: Literal["text", "json"] = option(
        LOGS, "text|json", "Plain lines, or one JSON object on each line.", default="text"
    )
    log_file_size_bytes: Size | None = option(
        LOGS,
        "SIZE",
        "Rotate the log file at this size, and keep three old ones.",
        default=None,
        ge=64 * units.KIB,
        shown_default="left to logrotate",
    )
    access_log: AbsolutePath | None = option(
        LOGS,
        "FILE",
        "Write one line of JSON to this file for each call of a program.",
        default=None,
    )
    metrics_address: Annotated[str, values.listen_address] | None = option(
        LOGS,
        "[HOST:]PORT",
        "Serve Prometheus metrics, and a status page for browsers, at this address; a port alone "
        "is local to this machine.",
        default=None,
    )
    status_names: Flag = option(
        LOGS,
        "",
        "Show the mountpoint, the prefix and the keys of slow requests on the status page.",
        default=False,
    )
