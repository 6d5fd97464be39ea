"""``ossfs-py completion``, and the answers to a shell that completes a command line.

The shell asks the command itself (click's way), so it completes exactly the commands, options and
values that the command has. The placeholder of a parameter says which values it takes.
"""

import re
from copy import copy
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
)

_ASKED = "_OSSFS_PY_COMPLETE"
"""The variable through which a shell asks; click makes it of the program's name."""
_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}
_ALTERNATIVES = re.compile(r"[\w:.]+(\|[\w:.]+)+")
_DIRECTORIES = re.compile(r"\b(DIR|MOUNTPOINT)\b")
_FILES = re.compile(r"\b(FILE|LIST|PATH|SRC|DST)\b")


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and values.

    \b
    bash:  ossfs-py completion bash >~/.local/share/bash-completion/completions/ossfs-py
    zsh:   ossfs-py completion zsh >DIRECTORY/_ossfs-py   (a directory of $fpath)
    fish:  ossfs-py completion fish >~/.config/fish/completions/ossfs-py.fish
    """
    root = click.get_current_context().find_root().command
    # From the base class: click's own class for bash starts a bash to ask for its version.
    click.echo(ShellComplete.source(_SHELLS[shell](root, {}, "ossfs-py", _ASKED)))


def completed(command: click.Command) -> click.Command:
    """A copy of the command, whose parameters know what their placeholders say of values.

    For completing only: the settings model judges values, and says more about wrong ones.
    """
    command = copy(command)
    if isinstance(command, click.Group):
        command.commands = {name: completed(inner) for name, inner in command.commands.items()}
    command.params = [_described(parameter) for parameter in command.params]
    return command


def _described(parameter: click.Parameter) -> click.Parameter:
    texts = click.types.StringParamType | click.types.UnprocessedParamType
    meant = _meant(parameter.metavar or "") if isinstance(parameter.type, texts) else None
    if meant is None:
        return parameter
    parameter = copy(parameter)
    parameter.type = meant
    return parameter


def command_items(commands: dict[str, str], incomplete: str) -> list[CompletionItem]:
    """The commands, by name and text, that begin so."""
    return [
        CompletionItem(name, help=text)
        for name, text in commands.items()
        if name.startswith(incomplete)
    ]


def _meant(placeholder: str) -> "click.ParamType[Any] | None":
    if _ALTERNATIVES.fullmatch(placeholder):
        return click.Choice(placeholder.split("|"))
    if _FILES.search(placeholder):
        return click.Path()
    if _DIRECTORIES.search(placeholder):
        return click.Path(file_okay=False)
    return None
