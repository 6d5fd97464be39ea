"""Which settings of a mount may change while it goes from one daemon to the next."""

from typing import Final

from ossfs_py.config.groups.option import LIMITS
from ossfs_py.config.settings import ARGUMENTS, Settings, option_name

_FIELDS = frozenset(
    {
        *("profile", "credentials_file", "anonymous", "ca_bundle", "verify_tls", "read_endpoint"),
        *("cache_size_bytes", "min_free_bytes", "model_hints", "small_file_prefetch"),
        *("shared_cache", "shared_cache_secret", "shared_cache_timeout_seconds"),
        *("metadata_ttl_seconds", "negative_ttl_seconds", "readahead_bytes"),
        *("log_level", "log_file", "log_format", "log_file_size_bytes", "access_log"),
        "status_names",
    }
)

CHANGEABLE: Final = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if name in _FIELDS or field.group == LIMITS
)
"""Fields; all others are what programs have open, or what the kernel and the keeper were told."""

_FOUND_OUT = frozenset({"at_ns"})
"""Read anew they may be another: the first daemon has found them out for all."""


def fixed_settings(settings: Settings) -> dict[str, str]:
    """The settings that the next daemon of a mount must share, as text by field."""
    return {
        name: str(value)
        for name, value in settings
        if name not in CHANGEABLE and name not in _FOUND_OUT
    }


def as_option(field: str) -> str:
    """How a setting is called on the command line."""
    return ARGUMENTS.get(field) or f"--{option_name(field)}"
