"""``info,store=debug``: which messages are shown, for all and for single areas."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

LEVELS = ("debug", "info", "warning", "error")

AREAS: Mapping[str, tuple[str, ...]] = {
    "fuse": ("fuse",),
    "files": ("filesystem",),
    "names": ("namespace",),
    "data": ("datapath",),
    "transfer": ("reading", "runtime", "sharedcache", "writing"),
    "store": ("store",),
    "daemon": ("cli", "control", "daemon", "host", "telemetry"),
}
"""An area as people know it, and the rooms that belong to it."""

_SEPARATOR = re.compile(r"[,\s]+")


@dataclass(frozen=True)
class LogLevels:
    """The level of everything, and of the areas that differ from it."""

    default: str = "info"
    areas: Mapping[str, str] = field(default_factory=dict)

    def changed(self, text: str) -> "LogLevels":
        """These levels after ``text``: a bare level is everybody's, ``AREA=LEVEL`` one area's.

        Raises:
            ValueError: with the end of a sentence that begins with the option's name.
        """
        default, areas = self.default, dict(self.areas)
        words = [word for word in _SEPARATOR.split(text.strip().lower()) if word]
        if not words:
            raise ValueError("must not be empty")
        for word in words:
            area, equals, level = word.rpartition("=")
            if level not in LEVELS:
                raise ValueError(f"{level!r} is none of {', '.join(LEVELS)}")
            if not equals:
                default, areas = level, {}
            elif area in AREAS:
                areas[area] = level
            else:
                raise ValueError(f"{area!r} is no area; there are {', '.join(AREAS)}")
        return LogLevels(default, areas)

    def __str__(self) -> str:
        return ",".join([self.default, *(f"{name}={level}" for name, level in self.areas.items())])


def parse_levels(value: object) -> LogLevels:
    """The levels an option means."""
    return value if isinstance(value, LogLevels) else LogLevels().changed(str(value))
