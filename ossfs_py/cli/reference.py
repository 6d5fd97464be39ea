"""The manual page and the tables of the documentation, from the commands and the settings model.

``python -m ossfs_py.cli.reference [FILE]...`` updates the tables of those files; without names,
those of the pages in ``ossfs_py/docs``.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import cast

import click

from ossfs_py.cli.formatting import wrapped
from ossfs_py.cli.options import setting_options
from ossfs_py.config.foreign_names import (
    FOREIGN_NAMES,
    GOOFYS,
    MOUNTPOINT,
    OSSFS,
    OSSFS2,
    RCLONE,
    S3FS,
    ForeignName,
)
from ossfs_py.config.groups.option import GROUPS
from ossfs_py.config.settings import Settings
from ossfs_py.config.sources import FIELD_OF_NAME

_PARAGRAPH = re.compile(r"\n\s*\n")
_PLAIN_COLUMNS = 80
_AS_IT_STANDS = "\b"
"""click's mark of a paragraph that is not to be filled."""

_DESCRIPTION = """\
ossfs-py mounts an S3 or Alibaba OSS bucket, or a part of it, as a directory. Objects stay one to
one with files: any other client of the store can read what the mount wrote, and the mount reads
what any other client wrote. There is no metadata server and no private format.

Bytes are kept in temporary files, in a persistent disk cache, or in memory only: see --data-path.
"ossfs-py docs" lists the pages of the guide."""

_FILES = (
    ("/etc/ossfs-py/NAME.toml", "Settings of the service ossfs-py@NAME, by their long names."),
    (
        "/var/lib/ossfs-py, ~/.local/state/ossfs-py",
        "Data that is not in the bucket yet, and unsaved files.",
    ),
    ("/var/cache/ossfs-py, ~/.cache/ossfs-py", "The disk cache of the data path cache."),
    ("/etc/fuse.conf", "user_allow_other, which --allow-other of ordinary users needs."),
)
_VARIABLES = (
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ...",
        "Credentials, as for every AWS tool, files and roles included.",
    ),
    (
        "OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET, OSS_SESSION_TOKEN",
        "Credentials of Alibaba OSS; used first on an OSS endpoint.",
    ),
    (
        "OSSFS_PY_NAME",
        "The setting NAME of a mount, such as OSSFS_PY_CACHE_SIZE; OSSFS_PY_CONFIG names a file.",
    ),
    ("http_proxy, https_proxy, no_proxy", "An http:// proxy to reach the store through."),
)
_STATUS = (
    ("0", "Done."),
    ("1", "Failed; one sentence on standard error says why."),
    ("2", "Wrong usage; all mistakes are reported at once."),
    ("130", "Interrupted by Ctrl-C."),
)


# -- tables of the documentation ----------------------------------------------------------------


def options_tables() -> str:
    """A table for each group of settings, in Markdown."""
    context = click.Context(click.Command("mount"), info_name="mount")
    rows: dict[str, list[str]] = {group: [] for group in GROUPS}
    for option in setting_options():
        names, help_text = _record(option, context)
        text, _, default = help_text.partition("  [")
        default = default.removesuffix("]")
        cells = (f"`{_cell(names)}`", _cell(text), _cell(default))
        rows[Settings.model_fields[str(option.name)].group].append(f"| {' | '.join(cells)} |")
    return "\n".join(_tables(rows))


def _tables(rows: dict[str, list[str]]) -> Iterator[str]:
    for group, lines in rows.items():
        yield f"\n## {group}\n\n| option | what it does | default |\n| --- | --- | --- |"
        yield from lines


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _record(option: click.Parameter, context: click.Context) -> tuple[str, str]:
    record = option.get_help_record(context) or ("", "")
    is_flag = bool(option.secondary_opts)
    if is_flag and not Settings.model_fields[str(option.name)].default:
        return option.opts[0], record[1]
    return record


_PREDECESSORS = (
    ("ossfs 1.9x and s3fs", (OSSFS, S3FS)),
    ("ossfs 2", (OSSFS2,)),
    ("mountpoint-s3", (MOUNTPOINT,)),
    ("goofys", (GOOFYS,)),
    ("rclone mount", (RCLONE,)),
)
"""Headings of the tables for those who come from another program, and whose options each has."""


def migration_tables() -> str:
    """A table for each program that people come from, in Markdown."""
    return "\n".join(_migration_tables())


def _migration_tables() -> Iterator[str]:
    yield from _side_by_side()
    for title, programs in _PREDECESSORS:
        yield f"\n## {title}\n\n| option there | option here | note |\n| --- | --- | --- |"
        for name, known in FOREIGN_NAMES.items():
            theirs = [program for program in programs if program in known.programs]
            if theirs:
                only = f" ({theirs[0]})" if len(theirs) < len(programs) else ""
                yield f"| `{name}`{only} | {_flags(known)} | {_cell(known.note)} |"


_PROGRAMS = (OSSFS, OSSFS2, S3FS, MOUNTPOINT, GOOFYS, RCLONE)


def _side_by_side() -> Iterator[str]:
    """A row for each option of ours that several programs have, a column for each program."""
    yield "\n## Side by side\n"
    yield f"| ossfs-py | {' | '.join(_PROGRAMS)} |"
    yield "| --- " * (len(_PROGRAMS) + 1) + "|"
    for option in setting_options():
        theirs = {program: _names_at(program, str(option.name)) for program in _PROGRAMS}
        if sum(map(bool, theirs.values())) > 1:
            yield f"| `{option.opts[0]}` | {' | '.join(theirs.values())} |"


def _names_at(program: str, field: str) -> str:
    return " ".join(
        f"`{name}`"
        for name, known in FOREIGN_NAMES.items()
        if program in known.programs
        and field in (FIELD_OF_NAME[here.partition("=")[0]] for here in known.options())
    )


def _flags(known: ForeignName) -> str:
    return " ".join(f"`{flag}`" for flag in known.flags())


TABLES: Mapping[str, Callable[[], str]] = {
    "options": options_tables,
    "migration": migration_tables,
}
"""The parts that can be generated between the marks of that name in a page."""


def marks(name: str) -> tuple[str, str]:
    """The marks around a generated part of a page."""
    return f"<!-- {name}: begin (make readme) -->", f"<!-- {name}: end -->"


def with_tables(text: str) -> str:
    """The text with the parts between such marks generated again."""
    for name, made in TABLES.items():
        begin, end = marks(name)
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n{made()}\n\n{end}{rest.partition(end)[2]}"
    return text


# -- man page ---------------------------------------------------------------------------------


def man_page(root: click.Group) -> str:
    """The manual page of every command below ``root``, in roff."""
    lines = [
        f'.TH OSSFS\\-PY 1 "" "ossfs\\-py {version("ossfs-py")}" "User Commands"',
        *_section("NAME", [r"ossfs\-py \- " + _escape(_summary(root))]),
        *_section("SYNOPSIS", [r"\fBossfs\-py\fR \fICOMMAND\fR [\fIARGUMENTS\fR]"]),
        *_section("DESCRIPTION", _paragraphs(_DESCRIPTION)),
        *_section("COMMANDS", _commands(root)),
        *_section("ENVIRONMENT", _entries(_VARIABLES)),
        *_section("FILES", _entries(_FILES)),
        *_section("EXIT STATUS", _entries(_STATUS)),
        *_section("SEE ALSO", [r"\fBmount\fR(8), \fBfusermount3\fR(1), \fBfuse\fR(8)"]),
    ]
    return "\n".join(lines) + "\n"


_FONTS = re.compile(r"\\f[BIR]")


def plain_page(page: str) -> str:
    """A manual page without roff, for terminals where no man(1) shows it."""
    return "\n".join(_plain_lines(page)) + "\n"


def _plain_lines(page: str) -> Iterator[str]:
    indent, is_name = "", False
    for line in page.splitlines():
        request, _, text = line.partition(" ")
        if request in (".SH", ".SS"):
            yield from ("", _unescape(text))
            indent = "    "
        elif request in (".PP", ".TP"):
            yield ""
            is_name = request == ".TP"
            indent = "    "
        elif not line.startswith("."):
            yield from _filled(_unescape(line), indent)
            indent = "        " if is_name else indent


def _filled(text: str, indent: str) -> list[str]:
    if text.startswith(" "):  # an example, as it stands
        return [indent + text]
    return [indent + line for line in wrapped(text, _PLAIN_COLUMNS - len(indent))]


def _unescape(text: str) -> str:
    return _FONTS.sub("", text).replace(r"\&", "").replace(r"\-", "-").replace(r"\e", "\\")


def _summary(command: click.Command) -> str:
    return (command.help or "").partition("\n")[0].rstrip(".")


def _commands(group: click.Group, path: str = "ossfs-py") -> Iterator[str]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = cast(click.Command, group.get_command(context, name))
        yield from _command(command, f"{path} {name}")


def _command(command: click.Command, path: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield from _commands(command, path)
        return
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {_escape(path)} {_escape(usage)}"
    yield from _paragraphs(command.help or "")
    yield from _options(command, context)
    yield from _paragraphs(command.epilog or "")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records: dict[str, list[tuple[str, str]]] = {"": []}
    for parameter in command.get_params(context):
        # "--help" of every command says what this page says.
        if isinstance(parameter, click.Argument) or parameter.name == "help":
            continue
        is_setting = parameter.name in Settings.model_fields and command.name == "mount"
        group = Settings.model_fields[str(parameter.name)].group if is_setting else ""
        record = parameter.get_help_record(context)
        if is_setting:
            record = _record(parameter, context)
        if record is not None:
            records.setdefault(group, []).append(record)
    for group in (*GROUPS, ""):
        if records.get(group):
            yield from (".PP", rf"\fI{_escape(group)}\fR") if group else ()
            yield from _entries(records[group])


def _entries(records: Iterable[tuple[str, str]]) -> Iterator[str]:
    for names, text in records:
        yield ".TP"
        yield rf"\fB{_escape(names)}\fR"
        yield _escape(text)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in _PARAGRAPH.split(text.strip("\n")):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if lines and lines[0].strip() == _AS_IT_STANDS.strip("\n"):
            yield from (".PP", ".nf", *(_escape(line) for line in lines[1:]), ".fi")
        elif lines and lines[0].startswith(_AS_IT_STANDS):
            kept = [lines[0].removeprefix(_AS_IT_STANDS), *lines[1:]]
            yield from (".PP", ".nf", *(_escape(line) for line in kept if line.strip()), ".fi")
        elif lines:
            yield from (".PP", _escape(" ".join(line.strip() for line in lines)))


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f".SH {title}"
    body = list(lines)
    # A paragraph mark right after a heading is one too many.
    yield from body[1:] if body and body[0] == ".PP" else body


def _escape(text: str) -> str:
    """Text as roff prints it: backslashes and hyphens as they are, no line a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Update the tables of the files named on the command line."""
    named = [Path(name) for name in sys.argv[1:]]
    for path in named or sorted((Path(__file__).parents[1] / "docs").glob("*.md")):
        path.write_text(with_tables(path.read_text()))


if __name__ == "__main__":
    main()
