"""Limits of a mount: memory, connections, bandwidth, time."""

from typing import Annotated

from ossfs_py.config import machine as host
from ossfs_py.config import units, values
from ossfs_py.config.groups.option import LIMITS, Count, Duration, Size, option
from ossfs_py.config.model import SettingsModel


class LimitSettings(SettingsModel):
    """Help group "Network and memory"."""

    memory_limit_bytes: Size = option(
        LIMITS,
        "SIZE",
        "Maximum memory for data, of the whole mount.",
        default_factory=host.default_memory_limit,
        ge=host.MIN_MEMORY_BYTES,
        shown_default="1GiB, or a quarter of the memory if that is less",
    )
    concurrency: Count = option(
        LIMITS,
        "COUNT",
        "Maximum number of requests, and connections, at the same time.",
        default=32,
        ge=1,
        le=512,
    )
    upload_limit_bytes: Size | None = option(
        LIMITS,
        "SIZE",
        "Maximum bytes per second that the whole mount sends to the store.",
        default=None,
        ge=64 * units.KIB,
        shown_default="no limit",
    )
    download_limit_bytes: Size | None = option(
        LIMITS,
        "SIZE",
        "Maximum bytes per second that the whole mount receives from the store.",
        default=None,
        ge=64 * units.KIB,
        shown_default="no limit",
    )
    bind: Annotated[tuple[str, ...], values.own_addresses] = option(
        LIMITS,
        "ADDRESS[,ADDRESS]",
        "Local addresses to connect to the store from, in turn.",
        default=(),
        shown_default="the system's choice",
    )
    connect_timeout_seconds: Duration = option(
        LIMITS, "DURATION", "Maximum wait for a connection.", default=5.0, gt=0
    )
    stall_timeout_seconds: Duration = option(
        LIMITS,
        "DURATION",
        "Give up a connection on which no byte arrives for this long.",
        default=10.0,
        gt=0,
    )
    retry_budget_seconds: Duration = option(
        LIMITS,
        "DURATION",
        "How long to retry a failing request before a program gets an error.",
        default=90.0,
    )
