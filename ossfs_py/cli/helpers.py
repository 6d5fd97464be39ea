"""Code that the helpers of mount(8) and umount(8) share: one sentence and mount(8)'s exit codes."""

from collections.abc import Sequence
from typing import Any

import click

from ossfs_py.cli.terminal import say
from ossfs_py.errors import UsageError, UserError

_WRONG_USAGE, _FAILED = 1, 32
"""As mount(8) documents its own."""


def run_helper(command: click.Command, name: str, argv: Sequence[str]) -> int:
    """Run a helper's command; its exit code."""
    try:
        result: Any = command.main(list(argv), prog_name=name, standalone_mode=False)
    except click.UsageError as exc:
        tell(name, exc.format_message())
        return _WRONG_USAGE
    except click.Abort:
        return _FAILED
    except UserError as exc:
        tell(name, str(exc))
        return _WRONG_USAGE if isinstance(exc, UsageError) else _FAILED
    return result if isinstance(result, int) else 0


def tell(name: str, text: str) -> None:
    """Say something on standard error, which mount(8) passes on."""
    for line in text.split("\n"):
        say(f"{name}: {line}", err=True)
