"""``ossfs-py container``: what the image runs.

Its defaults are weaker than every other source of settings, a TOML file included.
"""

import sys

import click

from ossfs_py.cli.terminal import help_settings
from ossfs_py.config import Settings
from ossfs_py.errors import EnvironmentProblemError

DEFAULT_MOUNTPOINT = "/mnt/bucket"
_NAME = "ossfs-py"


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    epilog="""\b
Examples, as arguments of the image:
  --data-path direct                  (options of "ossfs-py mount")
  mount --help                        (lists them)
  mount models /mnt/shared/models     (stays in the foreground)
  warmup /mnt/shared/models           (any other command)
""",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def container(arguments: tuple[str, ...]) -> int:
    """Mount in the foreground as a container does, or run another command of ossfs-py.

    Settings come from OSSFS_PY_ variables, such as OSSFS_PY_BUCKET, or from ARGUMENTS. The
    mountpoint is /mnt/bucket unless a setting names another one. It is created if it is missing,
    and may contain files. Without a terminal, the log is JSON.
    """
    from ossfs_py.cli.main import cli

    words = list(arguments[1:] if arguments[:1] == (_NAME,) else arguments)
    if words and words[0] != "mount" and not words[0].startswith("-"):
        result = cli.main(words, prog_name=_NAME, standalone_mode=False, **help_settings())
        return result if isinstance(result, int) else 0
    if words[:1] == ["mount"]:
        del words[0]
    return _mount(words)


def _mount(words: list[str]) -> int:
    from ossfs_py.cli.mount import Habits, mount

    defaults = {
        "mountpoint": DEFAULT_MOUNTPOINT,
        "nonempty": True,
        "foreground": True,
        "log_format": "text" if sys.stderr.isatty() else "json",
    }
    around = Habits(defaults, _make)
    result = mount.main(
        words, prog_name=f"{_NAME} mount", standalone_mode=False, obj=around, **help_settings()
    )
    return result if isinstance(result, int) else 0


def _make(settings: Settings) -> None:
    """Make the mountpoint where it is missing; what a killed container left there is not touched.

    Raises:
        EnvironmentProblemError: it cannot be made.
    """
    from ossfs_py.host.kernelside import given_descriptor
    from ossfs_py.host.mountpoint import THIS_MACHINE, real_path

    mountpoint = settings.mountpoint
    if given_descriptor(mountpoint) is not None:
        return
    if THIS_MACHINE.mounts_at(real_path(mountpoint)):
        return
    try:
        mountpoint.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        return  # a file: why that is no mountpoint is told with everything else
    except OSError as exc:
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} cannot be made: {exc.strerror}"
        ) from exc
