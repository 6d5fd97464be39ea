"""The ``ossfs-py`` command: finds the subcommand and turns errors into sentences and exit codes.

Subcommands are imported when they are called, so that every command starts quickly.
"""

import os
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ossfs_py.cli.loading import loading
from ossfs_py.cli.terminal import WholeWordsFormatter, help_settings, say
from ossfs_py.errors import UserError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INTERRUPTED = 130
"""What a shell reports for a program ended by SIGINT."""

click.Context.formatter_class = WholeWordsFormatter

_COMMANDS = {
    "mount": ("ossfs_py.cli.mount:mount", "Mount a bucket, or a part of it, at a directory."),
    "umount": ("ossfs_py.cli.umount:umount", "Unmount, and wait until everything is uploaded."),
    "cleanup": ("ossfs_py.cli.cleanup:cleanup", "Remove the dead mount of a killed daemon."),
    "container": (
        "ossfs_py.cli.container:container",
        "Entry point of the container image: mount, or a command.",
    ),
    "sync": ("ossfs_py.cli.sync:sync", "Wait until everything written is in the bucket."),
    "recover": (
        "ossfs_py.cli.recover:recover",
        "List or upload files that a mount could not save.",
    ),
    "list": ("ossfs_py.cli.list:list_mounts", "Show the mounts on this host."),
    "health": ("ossfs_py.cli.health:health", "Check whether a mount answers, for health checks."),
    "info": ("ossfs_py.cli.info:info", "Show the object behind a path."),
    "cp": ("ossfs_py.cli.cp:cp", "Copy within a bucket; the store copies the bytes."),
    "versions": (
        "ossfs_py.cli.versions:versions",
        "Show the versions of a file, and who wrote them.",
    ),
    "restore": ("ossfs_py.cli.restore:restore", "Restore an older version of a file."),
    "undelete": ("ossfs_py.cli.undelete:undelete", "Bring back deleted files and directories."),
    "trash": ("ossfs_py.cli.trash:trash", "List, restore or delete copies of deleted files."),
    "refresh": ("ossfs_py.cli.refresh:refresh", "See changes by other clients at once."),
    "stats": ("ossfs_py.cli.stats:stats", "Show what a mount does: bytes, requests, errors."),
    "doctor": ("ossfs_py.cli.doctor:doctor", "Find problems, and what to do about them."),
    "upgrade": (
        "ossfs_py.cli.upgrade:upgrade",
        "Switch a mount to a new version or other options.",
    ),
    "keeper": (
        "ossfs_py.cli.node_keeper:keeper",
        "Hold mounts while their containers are replaced.",
    ),
    "log-level": ("ossfs_py.cli.log_level:log_level", "Show or change what a mount logs."),
    "warmup": ("ossfs_py.cli.warmup:warmup", "Load files into a cache ahead of time."),
    "bench": ("ossfs_py.cli.bench:bench", "Measure how fast a mount is for programs."),
    "cache": ("ossfs_py.cli.cache:cache", "Show, verify or clear the disk cache of a mount."),
    "demo": ("ossfs_py.cli.demo:demo", "Load a model from an embedded S3 server."),
    "docs": ("ossfs_py.cli.docs:docs", "Show a page of the documentation."),
    "man": ("ossfs_py.cli.man:man", "Print the manual page."),
    "completion": (
        "ossfs_py.cli.completion:completion",
        "Print the completion script for a shell.",
    ),
    "version": ("ossfs_py.cli.version:version", "Print the version."),
}
"""Name: where the command lives, and its line in ``ossfs-py --help``."""

_COMPLETE = "_OSSFS_PY_COMPLETE"
"""Set by a shell that asks for completions."""

_EPILOG = """\b
Examples:
  ossfs-py mount my-bucket /mnt/models --endpoint oss-cn-hangzhou.aliyuncs.com
  ossfs-py umount /mnt/models
"""


class _LazyGroup(click.Group):
    """Knows its commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises UsageError, with the command that looks most like it, for a name that is none."""
        if args[0] in _COMMANDS or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"{args[0]}: no such command{_suggested(args[0], _COMMANDS)}", ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name][0].split(":")
        with loading():
            command: click.Command = getattr(import_module(module), name)
        if _COMPLETE in os.environ:
            from ossfs_py.cli.completion import completed

            return completed(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list["CompletionItem"]:
        from ossfs_py.cli.completion import command_items

        texts = {name: text for name, (_, text) in _COMMANDS.items()}
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*command_items(texts, incomplete), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _suggested(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ossfs_py.cli.version import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    epilog=_EPILOG,
    no_args_is_help=True,
)
@click.option(
    *("--version", "-V"),
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Mount S3 and Alibaba OSS buckets as directories, made for loading models."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 it cannot be done here, 2 it was asked wrongly."""
    sys.exit(_run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    try:
        result: Any = cli.main(argv, prog_name="ossfs-py", standalone_mode=False, **help_settings())
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
    except click.UsageError as exc:
        _tell(_plain(exc))
        _tell_help(exc.ctx.command_path if exc.ctx else "ossfs-py")
        return exc.exit_code
    except click.Abort:
        return INTERRUPTED
    except UserError as exc:
        _tell(str(exc))
        return exc.exit_code
    return result if isinstance(result, int) else 0


def _plain(error: click.UsageError) -> str:
    """What is wrong, in the words in which the settings tell it."""
    if not isinstance(error, click.NoSuchOption):
        return error.format_message()
    # Compared without their dashes, which make short names look alike.
    known = (
        [name.lstrip("-") for one in error.ctx.command.params for name in one.opts]
        if error.ctx
        else []
    )
    closest = _suggested(error.option_name.lstrip("-"), known).replace("mean ", "mean --")
    return f"{error.option_name}: no such option{closest}"


def _tell(text: str) -> None:
    # Only our own line breaks begin a line; whatever else breaks one came with a name.
    for line in text.split("\n"):
        say(f"ossfs-py: {line}", err=True)


def _tell_help(command: str) -> None:
    click.echo(f"Try '{command} --help'.", err=True)
