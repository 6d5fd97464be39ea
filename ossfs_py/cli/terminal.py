"""The one way of text to a terminal.

Names of files, objects and programs are other people's words: they may hold terminal escapes, line
breaks, and what rich takes for markup. Whatever is shown of them goes through here. (JSON escapes
by itself.)
"""

from typing import TYPE_CHECKING

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


def console(*, stderr: bool = False, soft_wrap: bool = False) -> "Console":
    """A console that takes text as it is: no markup, no emoji names, no colours by guess."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)
