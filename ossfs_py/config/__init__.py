"""One validated settings model, and the only reader of argv, environment and config files."""

from ossfs_py.config.settings import ARGUMENTS, Settings
from ossfs_py.config.sources import BadOptionsError, CommandLine, Loaded, load, unknown_flag

__all__ = [
    "ARGUMENTS",
    "BadOptionsError",
    "CommandLine",
    "Loaded",
    "Settings",
    "load",
    "unknown_flag",
]
