"""``ossfs-py mount``."""

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ossfs_py.cli.kept import KEPT, changed_by_upgrades, predecessor_of
from ossfs_py.cli.options import SettingsCommand, setting_options
from ossfs_py.cli.terminal import say
from ossfs_py.config import ARGUMENTS, CommandLine, Settings, load, unknown_flag

if TYPE_CHECKING:
    from ossfs_py.host.handover import Predecessor

_HELP = """Mount BUCKET, or everything below BUCKET/PREFIX, at the directory MOUNTPOINT.

BUCKET may also be written as s3://bucket/prefix or oss://bucket/prefix. MOUNTPOINT may be
/dev/fd/N for a mount that another program has made. The command returns when the mount
answers. If it cannot mount, it says why in one sentence. Credentials are never options: they come
from variables (AWS_ACCESS_KEY_ID or OSS_ACCESS_KEY_ID and so on), a profile, --credentials-file,
or the role of the container or machine.
"""

_EPILOG = """\b
Examples:
  Models from Alibaba OSS, memory only:
    ossfs-py mount models /mnt/models --endpoint oss-cn-hangzhou.aliyuncs.com \\
        --data-path direct --read-only
  A part of a bucket, with a persistent cache on local disk:
    ossfs-py mount s3://bucket/team/models /mnt/models --data-path cache \\
        --cache-dir /nvme/cache --cache-size 500G
  A local S3 server, in the foreground:
    ossfs-py mount demo /mnt/demo --endpoint http://127.0.0.1:9000 --foreground
  As mount(8) and fstab write options:
    ossfs-py mount bucket /mnt/bucket -o ro,allow_other,metadata_ttl=5m

\b
Where a setting comes from, strongest first:
  --cache-size 500G             long flag
  -o cache_size=500G            mount option, - and _ alike
  OSSFS_PY_CACHE_SIZE=500G      environment
  cache-size = "500G"           TOML file named by --config
Sizes are powers of 1024 (512M, 8GiB, 1.5G); durations are 500ms, 60s, 5m, 1h.

\b
Exit codes: 0 mounted, 1 it cannot be mounted, 2 wrong usage.
"""


@dataclass(frozen=True)
class Habits:
    """Defaults of the surroundings, such as a container: the click object of the context.

    ``defaults`` are weaker than every source of settings; ``prepare`` runs before the mount.
    """

    defaults: Mapping[str, object]
    prepare: Callable[[Settings], None]


class _MountCommand(SettingsCommand):
    """Takes its options from the settings model."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.params[2:2] = setting_options()


@click.command(
    cls=_MountCommand,
    help=_HELP,
    epilog=_EPILOG,
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS]",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="BUCKET[/PREFIX] MOUNTPOINT")
@click.option(
    "-o",
    "mount_options",
    multiple=True,
    metavar="NAME=VALUE,FLAG",
    help="Options as mount(8) writes them.",
)
@click.option("--config", metavar="FILE", help="TOML file with settings by their long names.")
@click.pass_obj
def mount(
    around: Habits | None,
    /,
    arguments: tuple[str, ...],
    mount_options: tuple[str, ...],
    config: str | None,
    **values: object,
) -> int:
    line = _command_line(arguments, mount_options, config, values)
    if around is not None:
        line = replace(line, defaults=around.defaults)
    prepare = None if around is None else around.prepare
    return mount_as_told(line, lambda text: say(f"ossfs-py: warning: {text}", err=True), prepare)


def mount_as_told(
    line: CommandLine,
    warn: Callable[[str], None],
    prepare: Callable[[Settings], None] | None = None,
) -> int:
    """Mount what the command line and all other sources of settings say; the exit code.

    ``prepare`` is called with valid settings, before anything is looked at.

    Raises:
        UserError: why it cannot be mounted.
    """
    if KEPT in os.environ:
        from ossfs_py.cli.closer import start_closer

        start_closer()
    predecessor = predecessor_of(os.environ)
    with nullcontext() if predecessor is None else predecessor.hears_failures():
        line = replace(line, values={**line.values, **changed_by_upgrades(os.environ)})
        return _mount(line, warn, prepare, predecessor)


def _mount(
    line: CommandLine,
    warn: Callable[[str], None],
    prepare: Callable[[Settings], None] | None,
    predecessor: "Predecessor | None",
) -> int:
    loaded = load(line)
    for warning in loaded.warnings:
        warn(warning)
    if prepare is not None:
        prepare(loaded.settings)

    # By then the daemon has left this directory, so relative paths would mean something else.
    paths = {name: value for name, value in loaded.settings if isinstance(value, Path)}
    again = replace(line, values={**line.values, **paths}, config_file=loaded.config_file)

    def reread() -> Settings:
        return load(again).settings

    from ossfs_py.cli.starting import start

    return start(loaded.settings, reread, warn, predecessor)


def _command_line(
    arguments: tuple[str, ...],
    mount_options: tuple[str, ...],
    config: str | None,
    values: dict[str, object],
) -> CommandLine:
    given = {name: value for name, value in values.items() if value is not None}
    unknown = [argument for argument in arguments if argument.startswith("-")]
    words = [argument for argument in arguments if argument not in unknown]
    problems = [unknown_flag(argument) for argument in unknown]
    if unknown:
        # Whether a word after an unknown option is its value or an argument cannot be told: the
        # arguments are not judged, only the other options are.
        given.update(bucket="bucket", mountpoint="/nonexistent")
    else:
        given.update(zip(ARGUMENTS, words, strict=False))
        problems += [f"unexpected argument {word!r}" for word in words[len(ARGUMENTS) :]]
    return CommandLine(given, mount_options, config, tuple(problems))
