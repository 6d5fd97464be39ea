"""Command line options generated from the settings model, and their ``--help``."""

from collections.abc import Iterable

import click
from pydantic.fields import FieldInfo

from ossfs_py.config import units
from ossfs_py.config.groups.option import GROUPS
from ossfs_py.config.settings import (
    NOT_OPTIONS,
    Settings,
    needs_no_value,
    option_extra,
    option_name,
)


def setting_options(group: str | None = None, beside: Iterable[str] = ()) -> list[click.Option]:
    """One option for each field of the model that is one; of a ``group``, only those in it and
    the fields named ``beside`` it.

    Every value stays a string: the model judges all of them at once, so that one call tells
    everything that is wrong.
    """
    return [
        _flag(name, field) if field.annotation is bool else _valued(name, field)
        for name, field in Settings.model_fields.items()
        if name not in NOT_OPTIONS
        and (group is None or option_extra(name)["group"] == group or name in beside)
    ]


def _flag(name: str, field: FieldInfo) -> click.Option:
    flag = option_name(name)
    # The --no- form is there to overrule the environment or a file.
    return click.Option(
        [f"--{flag}/--no-{flag}", name], default=None, help=_help(name, field), show_default=False
    )


class _ValueAtWill(click.Option):
    """An option that may stand without its value: ``--trash`` or ``--trash=PREFIX``."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """``--trash[=PREFIX]``."""
        record = super().get_help_record(ctx)
        return record and (record[0].replace(" [=", "[="), record[1])


def _valued(name: str, field: FieldInfo) -> click.Option:
    kind = _ValueAtWill if needs_no_value(name) else click.Option
    return kind(
        [f"--{option_name(name)}", name],
        metavar=option_extra(name)["metavar"],
        default=None,
        help=_help(name, field),
    )


def _help(name: str, field: FieldInfo) -> str:
    default = option_extra(name).get("shown_default") or _default(name, field)
    return f"{field.description}{f'  [{default}]' if default else ''}"


def _default(name: str, field: FieldInfo) -> str:
    value = field.get_default()
    if isinstance(value, bool):
        return "yes" if value else ""
    if value in (None, ""):
        return ""
    if name.endswith("_bytes"):
        return units.format_size(value)
    if name.endswith("_seconds"):
        return units.format_duration(value)
    return str(value)


class SettingsCommand(click.Command):
    """A command whose help shows the settings in groups."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option that may stand without a value takes none from the word behind it."""
        end = args.index("--") if "--" in args else len(args)
        bare = {
            option
            for parameter in self.get_params(ctx)
            if isinstance(parameter, _ValueAtWill)
            for option in parameter.opts
        }
        given = [f"{word}=" if word in bare else word for word in args[:end]]
        return super().parse_args(ctx, given + args[end:])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            if parameter.name in Settings.model_fields:
                groups[option_extra(parameter.name)["group"]].append(_shorter(parameter, record))
            else:
                others.append(record)
        for title, records in groups.items():
            if not records:
                continue
            with formatter.section(title):
                formatter.write_dl(records, col_max=_names_columns(formatter))
        with formatter.section("Other"):
            formatter.write_dl(others, col_max=_names_columns(formatter))


def _names_columns(formatter: click.HelpFormatter) -> int:
    """How wide the names may be: in a narrow terminal their text needs the room."""
    return min(32, formatter.width * 2 // 5)


def _shorter(parameter: click.Parameter, record: tuple[str, str]) -> tuple[str, str]:
    """Leave out the ``--no-`` form of a flag where that is the default."""
    if not parameter.secondary_opts or Settings.model_fields[str(parameter.name)].default:
        return record
    return parameter.opts[0], record[1]
