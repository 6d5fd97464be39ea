"""From the command line, ``-o``, the environment and a TOML file to one Settings.

Precedence, strongest first: long flags, ``-o``, ``OSSFS_PY_*`` variables, the TOML file
(``--config``), defaults. Everything that is wrong is told at once, each in the words the user
wrote.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from ossfs_py.config.foreign_names import FOREIGN_NAMES
from ossfs_py.config.model import Conflict, InvalidSettingsError
from ossfs_py.config.mount_options import parse_mount_options
from ossfs_py.config.settings import (
    ARGUMENTS,
    NOT_OPTIONS,
    Settings,
    needs_no_value,
    option_name,
)
from ossfs_py.errors import UsageError

ENVIRONMENT_PREFIX = "OSSFS_PY_"
_SOURCE_SCHEMES = ("s3://", "oss://")

FIELD_OF_NAME: Mapping[str, str] = {
    option_name(field).replace("-", "_"): field
    for field in Settings.model_fields
    if field != "kernel_options"
}
"""Option name with underscores (``cache_size``) to field (``cache_size_bytes``)."""


class BadOptionsError(UsageError):
    """Several options are wrong; ``problems`` has one line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class CommandLine:
    """The values of the command line, not checked yet.

    ``values`` maps fields to raw values; ``problems`` are mistakes already found there.
    """

    values: Mapping[str, object]
    mount_options: tuple[str, ...] = ()
    config_file: str | None = None
    problems: tuple[str, ...] = ()
    sloppy: bool = False
    """Unknown mount options are warned of only (mount -s)."""
    defaults: Mapping[str, object] | None = None
    """Weaker than everything that anybody has said: what the image takes for granted."""


@dataclass(frozen=True)
class Loaded:
    """Valid settings and one sentence for each thing that was given but has no effect."""

    settings: Settings
    warnings: tuple[str, ...]
    config_file: str | None
    """The TOML file that was read, as an absolute path."""


@dataclass
class _Given:
    """Raw values of the fields with the words the user used for them."""

    values: dict[str, object]
    names: dict[str, str]
    problems: list[str]
    warnings: list[str]

    def put(self, field: str, value: object, name: str) -> None:
        """Note a value unless a stronger source gave one."""
        if field not in self.values:
            self.values[field] = value
            self.names[field] = name

    def name_of(self, field: str) -> str:
        """The user's word for a field, or the long flag when a default is at fault."""
        return self.names.get(field) or ARGUMENTS.get(field) or f"--{option_name(field)}"


def load(line: CommandLine, environ: Mapping[str, str] | None = None) -> Loaded:
    """One validated Settings from all sources.

    Raises:
        BadOptionsError: everything that is wrong, one line each.
    """
    environ = os.environ if environ is None else environ
    given = _Given({}, {}, list(line.problems), [])
    for field, value in line.values.items():
        given.put(field, value, ARGUMENTS.get(field) or f"--{option_name(field)}")
    named_by_option = _take_mount_options(given, line)
    named_by_variable = environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    config_file = line.config_file or named_by_option or named_by_variable
    _take_environment(given, environ)
    if config_file:
        config_file = str(Path(config_file).expanduser().absolute())
        _take_file(given, config_file)
    for name, value in (line.defaults or {}).items():
        given.put(name, value, ARGUMENTS.get(name) or f"--{option_name(name)}")
    _split_source(given)
    settings = _validate(given)
    if settings is None or given.problems:
        raise BadOptionsError(given.problems)
    given.warnings.extend(_without_effect(given, settings))
    return Loaded(settings, tuple(given.warnings), config_file or None)


def _take_mount_options(given: _Given, line: CommandLine) -> str | None:
    options = parse_mount_options(line.mount_options)
    unknown = given.warnings if line.sloppy else given.problems
    config_file = None
    # The last one of a name counts; what is wrong is told in the order in which it was written.
    first_unknown, first_problem = len(unknown), len(given.problems)
    for name, value in reversed(options.own):
        field = FIELD_OF_NAME.get(name)
        if name == "config":
            config_file = config_file or value
        elif field is None or field in ARGUMENTS:
            unknown.insert(first_unknown, f"-o {name}: {_answer(name, '')}")
        elif value is None and not _stands_alone(field):
            given.problems.insert(first_problem, f"-o {name}: needs a value (-o {name}=...)")
        else:
            given.put(field, True if value is None else value, f"-o {name}")
    if options.read_only:
        given.put("read_only", True, "-o ro")
    if options.kernel_options:
        given.put("kernel_options", tuple(dict.fromkeys(options.kernel_options)), "-o")
    return config_file


def _take_environment(given: _Given, environ: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if field := FIELD_OF_NAME.get(name):
            given.put(field, environ[variable], variable)
        elif name != "config" and not _names_a_service(name, environ[variable]):
            # No error: the environment may be meant for another version or program.
            given.warnings.append(f"{variable}: no such setting{_suggestion(name, '')}")


def _names_a_service(name: str, value: str) -> bool:
    """Whether Kubernetes, or a link of Docker's, has made the variable of a service whose name
    begins like ours: everybody in the namespace gets it.
    """
    if re.search(
        r"(?:^|_)(?:service_(?:host|port(?:_.+)?)|port_\d+_\w+_(?:proto|port|addr))$", name
    ):
        return True
    has_port = re.search(r"(?:^|_)port(?:_\d+_(?:tcp|udp|sctp))?$", name)
    return bool(has_port) and value.startswith(("tcp://", "udp://", "sctp://"))


def _take_file(given: _Given, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            content = tomllib.load(file)
    except OSError as exc:
        given.problems.append(f"--config: cannot read {path}: {exc.strerror}")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        quotes = " (strings stand in quotes)" if "Invalid value" in str(exc) else ""
        given.problems.append(f"--config: {path} is not TOML: {exc}{quotes}")
        return
    for key, value in content.items():
        field = FIELD_OF_NAME.get(key.replace("-", "_"))
        if field is None and isinstance(value, dict):
            given.problems.append(f"[{key}] in {path}: settings stand in no table")
        elif field is None:
            given.problems.append(f"{key} in {path}: no such setting{_suggestion(key, '')}")
        elif isinstance(value, dict | list):
            given.problems.append(f"{key} in {path}: must be a single value")
        else:
            given.put(field, value, f"{key} in {path}")


def _split_source(given: _Given) -> None:
    """Take ``bucket/prefix``, ``s3://bucket/prefix`` and ossfs's ``bucket:/prefix`` apart."""
    text = given.values.get("bucket")
    if not isinstance(text, str):
        return
    for scheme in _SOURCE_SCHEMES:
        text = text.removeprefix(scheme)
    if "://" in text or text.startswith("/"):
        return
    bucket, _, prefix = text.partition("/")
    given.values["bucket"] = bucket.removesuffix(":")
    if not prefix.strip("/"):
        return
    name = given.name_of("bucket")
    if "prefix" in given.values:
        given.problems.append(f"{given.name_of('prefix')}: {name} already names a prefix")
    given.values["prefix"], given.names["prefix"] = prefix, name


def _validate(given: _Given) -> Settings | None:
    try:
        return Settings.model_validate(given.values)
    except InvalidSettingsError as exc:
        wrong, conflicts = exc.wrong, exc.conflicts
    given.problems.extend(f"{given.name_of(field)}: {reason}" for field, reason in wrong.items())
    given.problems.extend(_conflict_lines(given, conflicts))
    if wrong:
        _find_conflicts_of_the_rest(given, wrong.keys())
    return None


def _find_conflicts_of_the_rest(given: _Given, wrong: Set[str]) -> None:
    """Combinations are judged on valid values only; put defaults where values were wrong."""
    rest = {field: value for field, value in given.values.items() if field not in wrong}
    stand_ins = {"bucket": "bucket", "mountpoint": "/nonexistent"}
    try:
        Settings.model_validate(stand_ins | rest)
    except InvalidSettingsError as exc:
        of_the_rest = [found for found in exc.conflicts if wrong.isdisjoint(found[0])]
        given.problems.extend(_conflict_lines(given, of_the_rest))


def _conflict_lines(given: _Given, conflicts: Iterable[Conflict]) -> list[str]:
    return [
        f"{' and '.join(given.name_of(field) for field in fields)}: {reason}"
        for fields, reason in conflicts
    ]


def _stands_alone(field: str) -> bool:
    return Settings.model_fields[field].is_flag or needs_no_value(field)


def _suggestion(name: str, dashes: str) -> str:
    plain = name.lower().replace("-", "_")
    names = [option for option in FIELD_OF_NAME if FIELD_OF_NAME[option] not in NOT_OPTIONS]
    close = get_close_matches(plain, names, n=1)
    if not close:
        return ""
    return f" (did you mean {dashes}{close[0].replace('_', '-') if dashes else close[0]}?)"


def unknown_flag(flag: str) -> str:
    """The problem line for a long flag that does not exist; its value is not repeated."""
    name = flag.partition("=")[0]
    return f"{name}: {_answer(name.lstrip('-'), '--')}"


def _answer(name: str, dashes: str) -> str:
    """The answer to an option that does not exist: our name for it, or the closest match."""
    foreign = FOREIGN_NAMES.get(name.lower().replace("-", "_"))
    if foreign is None:
        return f"no such option{_suggestion(name, dashes)}"
    return foreign.told(as_flag=bool(dashes))


def _without_effect(given: _Given, settings: Settings) -> list[str]:
    # A warning only: files and environments are shared by mounts of different data paths.
    lines = []
    if settings.data_path != "cache":
        lines += [
            f"{given.names[field]}: has no effect without --data-path cache"
            for field in ("cache_dir", "cache_size_bytes")
            if field in given.names
        ]
    if settings.endpoint and urlsplit(settings.endpoint).scheme == "http":
        lines += [
            f"{given.names[field]}: has no effect on an http:// endpoint"
            for field in ("ca_bundle", "verify_tls")
            if field in given.names
        ]
    if settings.trust_default_modes and not settings.allow_other:
        lines.append(f"{given.names['trust_default_modes']}: has no effect without --allow-other")
    return lines
