"""Sizes and texts as people read them."""

import textwrap
import time

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def short_size(size_bytes: float) -> str:
    """Three or four digits and a unit: ``1.5 GiB``. Not exact; settings use ``format_size``."""
    if size_bytes == 1:
        return "1 byte"
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def when(seconds: float) -> str:
    """A time since the epoch, on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters; words (paths, commands) stay whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
