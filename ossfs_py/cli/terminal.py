"""The one way of text to a terminal.

Names of files, objects and programs are other people's words: they may hold terminal escapes, line
breaks, and what rich takes for markup. Whatever is shown of them goes through here. (JSON escapes
by itself.)
"""

import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def printable(text: str) -> str:
    """``text`` with each sign that a terminal would act on, or that has no shape, as an escape
    (``\\x1b``, ``\\u202e``, ``\\udcff`` for a byte that is no UTF-8).
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def say(line: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(line), err=err)


def coloured(text: str, colour: str) -> str:
    """``text`` in a colour, unless ``NO_COLOR`` is set (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)


_CLICK_MINIMUM_COLUMNS = 50
"""click lays help out for at least this width (``click.HelpFormatter``)."""
_NARROWEST_HELP_COLUMNS = 30
_NARROW_NAMES_COLUMNS = 4
_MARGIN_COLUMNS = 2
"""click leaves these columns free at the right, too."""


def narrow_columns() -> int | None:
    """The width of help in a terminal that is narrower than click's minimum; None in any other
    terminal, which click measures.
    """
    columns = shutil.get_terminal_size().columns - _MARGIN_COLUMNS
    return max(columns, _NARROWEST_HELP_COLUMNS) if columns < _CLICK_MINIMUM_COLUMNS else None


_WIDEST_HELP_COLUMNS = 120
"""Help fills the terminal up to here; longer lines are hard to read."""


def help_settings() -> dict[str, Any]:
    """Settings of a click context that make its help fit the terminal."""
    return {
        "help_option_names": ["-h", "--help"],
        "max_content_width": _WIDEST_HELP_COLUMNS,
        "terminal_width": narrow_columns(),
    }


_UNBROKEN = "\u2011"
"""A hyphen after which textwrap breaks no line."""


class WholeWordsFormatter(click.HelpFormatter):
    """Help in which paths, options and addresses stay whole, as they are to be copied."""

    def write(self, string: str) -> None:
        super().write(string.replace(_UNBROKEN, "-"))

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args.replace("-", _UNBROKEN), prefix)

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _UNBROKEN))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """In a narrow terminal the texts begin below the names, and have its width."""
        if self.width < _CLICK_MINIMUM_COLUMNS:
            col_max = min(col_max, _NARROW_NAMES_COLUMNS)
        whole = [(name, text.replace("-", _UNBROKEN)) for name, text in rows]
        super().write_dl(whole, col_max, col_spacing)


_PIPE_COLUMNS = 20_000
"""No row is longer: a path has 4 KiB and a key one, written with up to four signs a byte."""


def console(
    *,
    stderr: bool = False,
    soft_wrap: bool = False,
    whole_lines: bool = False,
    on_terminals: bool = False,
) -> "Console":
    """A console that takes text as it is: no markup, no emoji names, no colours by guess.

    ``whole_lines``: what goes to a file or another program has one line a row; with
    ``on_terminals``, a terminal gets whole rows, too, and breaks the lines itself.
    """
    from rich.console import Console

    if whole_lines and (on_terminals or not (sys.stderr if stderr else sys.stdout).isatty()):
        return Console(
            stderr=stderr, width=_PIPE_COLUMNS, markup=False, emoji=False, highlight=False
        )
    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
