"""What the daemon says of itself: logs and metrics."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from ossfs_py.config import units, values
from ossfs_py.config.groups.option import LOGS, AbsolutePath, Flag, Size, option
from ossfs_py.telemetry.loglevels import AREAS, LogLevels, parse_levels


class RunningSettings(BaseModel):
    """Help group "Running"."""

    foreground: Flag = option(LOGS, "", "Stay attached and log to standard error.", default=False)
    log_level: Annotated[LogLevels, BeforeValidator(parse_levels)] = option(
        LOGS,
        "LEVEL[,AREA=LEVEL]",
        "Least severe messages shown (debug, info, warning, error), for all or for one area"
        f" ({', '.join(AREAS)}).",
        default=LogLevels(),
    )
    log_file: AbsolutePath | None = option(
        LOGS,
        "FILE",
        "Log file; reopened at SIGHUP.",
        default=None,
        shown_default="syslog, or ossfs-py.log in the state directory",
    )
    log_format: Literal["text", "json"] = option(
        LOGS, "text|json", "Lines for people, or one JSON object a line.", default="text"
    )
    log_file_size_bytes: Size | None = option(
        LOGS,
        "SIZE",
        "Begin a new log file at this size and keep three old ones.",
        default=None,
        ge=64 * units.KIB,
        shown_default="left to logrotate",
    )
    access_log: AbsolutePath | None = option(
        LOGS,
        "FILE",
        "Write a line of JSON here for each call a program makes.",
        default=None,
    )
    metrics_address: Annotated[str, BeforeValidator(values.listen_address)] | None = option(
        LOGS,
        "[HOST:]PORT",
        "Answer Prometheus at this address, and a browser with a page that shows the mount's state;"
        " a port alone is open to this machine only.",
        default=None,
    )
    status_names: Flag = option(
        LOGS,
        "",
        "Name the mountpoint, the prefix and the keys that are waited for on that page.",
        default=False,
    )
