"""``ossfs-py doctor``."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ossfs_py.cli.options import SettingsCommand, setting_options
from ossfs_py.cli.terminal import coloured, printable, say
from ossfs_py.config.groups.option import STORE
from ossfs_py.config.units import counted

if TYPE_CHECKING:
    from ossfs_py.config import Loaded
    from ossfs_py.doctor.findings import Finding

_HELP = """Check everything that a mount of BUCKET[/PREFIX] at MOUNTPOINT needs.

The machine is always checked. BUCKET adds the store and the bucket, MOUNTPOINT the mountpoint or
the mount that is there, --shared-cache its nodes. A single argument that begins with / or . is a
mountpoint. Nothing is written, except for a scratch key with --write.
"""

_EPILOG = """\b
Exit codes: 0 all is well (warnings included), 1 a check failed, 2 wrong usage.
"""

_BESIDE_STORE = (
    *("data_path", "temp_dir", "cache_dir", "state_dir"),
    *("allow_other", "nonempty", "connect_timeout_seconds", "retry_budget_seconds"),
    *("acl", "storage_class", "shared_cache"),
)
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}
_RETRY_SECONDS = 5.0
"""A diagnosis does not wait as long as a program waits for its data."""


class _DoctorCommand(SettingsCommand):
    """Takes the options that a mount takes to find its store."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.params[1:1] = [
            option for option in setting_options(STORE, _BESIDE_STORE) if option.name != "prefix"
        ]


@click.command(
    cls=_DoctorCommand,
    help=_HELP,
    epilog=_EPILOG,
    options_metavar="[OPTIONS]",
)
@click.argument("arguments", nargs=-1, metavar="[BUCKET[/PREFIX]] [MOUNTPOINT]")
@click.option("--config", metavar="FILE", help="TOML file with settings by their long names.")
@click.option("--write", is_flag=True, help="Also write and remove a scratch key in the bucket.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    arguments: tuple[str, ...], config: str | None, write: bool, as_json: bool, **values: object
) -> int:
    from ossfs_py.daemon.options import local_directories, store_options
    from ossfs_py.doctor.examination import Examined, examine
    from ossfs_py.doctor.findings import Status

    # The findings say what the store's code logs.
    logging.getLogger("ossfs_py").addHandler(logging.NullHandler())
    given = {name: value for name, value in values.items() if value is not None}
    given.update(_named(arguments))
    loaded, named = _load(given, config)
    settings = loaded.settings
    examined = Examined(
        store=store_options(settings) if "bucket" in named else None,
        write=write,
        directories=local_directories(settings),
        mountpoint=settings.mountpoint if "mountpoint" in named else None,
        nonempty=settings.nonempty,
        allow_other=settings.allow_other,
        has_lane=settings.fuse_lane != "off",
        shared_cache=settings.shared_cache,
    )
    findings = []
    for finding in examine(examined):
        findings.append(finding)
        if not as_json:
            word = finding.verdict or finding.status.value
            _show(finding.check, finding.status.value, word, finding.told, finding.fix)
    if as_json:
        rows = [
            {"check": f.check, "status": f.status.value, "told": f.told, "fix": f.fix}
            | ({"verdict": f.verdict} if f.verdict else {})
            for f in findings
        ]
        click.echo(json.dumps(rows, indent=1))
    else:
        say(_verdict(findings))
    return 1 if any(f.status is Status.FAILED for f in findings) else 0


def _verdict(findings: "list[Finding]") -> str:
    """One line for those who read the last one only."""
    from ossfs_py.doctor.findings import Status

    failed = [finding for finding in findings if finding.status is Status.FAILED]
    warnings = sum(finding.status is Status.WARNING for finding in findings)
    if failed:
        first = failed[0]
        return f"Not ready. First: {first.check}: {first.fix or first.told}"
    if warnings:
        return f"Ready, with {counted(warnings, 'warning')}."
    return "Ready."


def _named(arguments: tuple[str, ...]) -> dict[str, str]:
    if len(arguments) > 2:
        raise click.UsageError(f"unexpected argument {arguments[2]!r}")
    if len(arguments) == 1:
        is_path = arguments[0].startswith(("/", ".", "~"))
        return {"mountpoint" if is_path else "bucket": arguments[0]}
    return dict(zip(("bucket", "mountpoint"), arguments, strict=False))


def _load(given: dict[str, object], config: str | None) -> "tuple[Loaded, set[str]]":
    """The settings, and which of bucket and mountpoint somebody named."""
    from ossfs_py.config import ARGUMENTS, CommandLine, load
    from ossfs_py.config.sources import BadOptionsError

    given.setdefault("retry_budget_seconds", _RETRY_SECONDS)
    stand_ins = {"bucket": "bucket", "mountpoint": Path("/nonexistent")}
    try:
        return load(CommandLine(given, config_file=config)), set(ARGUMENTS)
    except BadOptionsError as exc:
        missing = {
            n for n, shown in ARGUMENTS.items() if f"{shown}: missing argument" in exc.problems
        }
        if not missing:
            raise
    given |= {name: stand_ins[name] for name in missing}
    return load(CommandLine(given, config_file=config)), set(ARGUMENTS) - missing


def _show(check: str, status: str, word: str, told: str, fix: str) -> None:
    """One row at once: the next check may take seconds."""
    from ossfs_py.cli.formatting import wrapped

    shown = coloured(f"{word:<9}", _COLOURS[status])
    first, *more = wrapped(told, 72)
    click.echo(f"{check:<17}{shown}{printable(first)}")
    for line in [*more, *(wrapped(f"-> {fix}", 72) if fix else [])]:
        say(f"{'':<26}{line}")
