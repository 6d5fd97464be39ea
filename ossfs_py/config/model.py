"""The parts of the settings model: fields that check values, and the base class of a model.

Own code, because every command and every daemon begins with it: pydantic, which was here before,
took 0.2 CPU-s to load and to build its validators, a quarter of a mount's start.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from ossfs_py.config import units

_MISSING: Any = object()
Conflict = tuple[tuple[str, ...], str]
"""The fields that cannot go together, and why."""


class InvalidSettingsError(Exception):
    """Everything that is wrong: a reason for each field, or what cannot go together."""

    def __init__(
        self, wrong: Mapping[str, str] | None = None, conflicts: list[Conflict] | None = None
    ) -> None:
        self.wrong = wrong or {}
        self.conflicts = conflicts or []
        told = [f"{field}: {reason}" for field, reason in self.wrong.items()]
        told += [f"{' and '.join(fields)}: {reason}" for fields, reason in self.conflicts]
        super().__init__("; ".join(told))


class Field:
    """One setting. Its annotation says what it is: ``Annotated[T, parse]`` is what ``parse`` makes
    of the words of a user, ``Literal[...]`` one of some words, ``T | None`` may be left unset.
    """

    def __init__(
        self,
        description: str,
        group: str = "",
        metavar: str = "",
        shown_default: str | None = None,
        *,
        default: object = _MISSING,
        default_factory: Callable[[], object] | None = None,
        ge: float | None = None,
        gt: float | None = None,
        le: float | None = None,
    ) -> None:
        self.description = description
        self.group = group
        self.metavar = metavar
        self.shown_default = shown_default
        self.default = None if default is _MISSING else default
        self.is_required = default is _MISSING and default_factory is None
        self._default_factory = default_factory
        self._at_least, self._more_than, self._at_most = ge, gt, le
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._take_apart(owner.__annotations__[name])

    def _take_apart(self, annotation: Any) -> None:
        self._may_be_none = False
        if get_origin(annotation) in (Union, UnionType):
            (annotation,) = (each for each in get_args(annotation) if each is not NoneType)
            self._may_be_none = True
        self._parse: Callable[[object], object] | None = None
        if get_origin(annotation) is Annotated:
            annotation, self._parse = get_args(annotation)
        self.is_flag = annotation is bool
        self.is_path = annotation is Path
        is_tuple = get_origin(annotation) is tuple
        self._of_many = get_args(annotation)[0] if is_tuple else None
        one = self._of_many if is_tuple else annotation
        self._choices = get_args(one) if get_origin(one) is Literal else ()
        self._is_text = annotation is str

    def default_value(self) -> object:
        """The default, as a user would write it or as it is."""
        return self.default if self._default_factory is None else self._default_factory()

    def judged(self, value: object) -> object:
        """The parsed ``value``.

        Raises:
            ValueError: the end of a sentence that begins with the option's name.
        """
        if value is None and self._may_be_none:
            return None
        if self._parse is not None:
            value = self._parse(value)
        elif self._is_text and not isinstance(value, str):
            raise ValueError(f"{value!r} is not a text")
        if self._choices:
            for one in value if isinstance(value, tuple) else (value,):
                if one not in self._choices:
                    raise ValueError(f"{one!r} is none of {', '.join(self._choices)}")
        if isinstance(value, int | float):
            self._check_bounds(value)
        return value

    def _check_bounds(self, value: float) -> None:
        if self._at_least is not None and value < self._at_least:
            raise ValueError(f"must be at least {written(self._name, self._at_least)}")
        if self._more_than is not None and value <= self._more_than:
            raise ValueError(f"must be more than {written(self._name, self._more_than)}")
        if self._at_most is not None and value > self._at_most:
            raise ValueError(f"must be at most {written(self._name, self._at_most)}")


class SettingsModel:
    """A set of fields. Immutable once it is made; iterating gives names and values."""

    model_fields: ClassVar[Mapping[str, Field]] = {}
    """The fields of all bases, those of the last base first."""
    model_fields_set: frozenset[str]
    """The names of the settings that were given, in contrast to defaults."""

    def __init_subclass__(cls) -> None:
        cls.model_fields = {
            name: field
            for base in reversed(cls.__mro__)
            for name, field in vars(base).items()
            if isinstance(field, Field)
        }

    def __init__(self, **values: object) -> None:
        found, wrong = self._judge(values)
        if wrong:
            raise InvalidSettingsError(wrong)
        self._keep(found, frozenset(values))
        if conflicts := self.conflicts():
            raise InvalidSettingsError(conflicts=conflicts)

    def _judge(self, values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
        found: dict[str, object] = {}
        wrong = {name: "no such setting" for name in values if name not in self.model_fields}
        for name, field in self.model_fields.items():
            if name not in values and field.is_required:
                wrong[name] = "missing argument"
                continue
            try:
                found[name] = field.judged(
                    values[name] if name in values else field.default_value()
                )
            except ValueError as exc:
                wrong[name] = str(exc)
        return found, wrong

    def _keep(self, found: Mapping[str, object], given: frozenset[str]) -> None:
        self.__dict__.update(found, model_fields_set=given)

    def conflicts(self) -> list[Conflict]:
        """Conflicts between valid values."""
        return []

    @classmethod
    def model_validate(cls, values: Mapping[str, object]) -> Self:
        """A model of raw values by their fields' names.

        Raises:
            InvalidSettingsError: everything that is wrong; combinations only of valid values.
        """
        return cls(**values)

    def model_copy(self, update: Mapping[str, object]) -> Self:
        """The same with other values, which are taken as they are."""
        other = object.__new__(type(self))
        other._keep({**dict(self), **update}, self.model_fields_set | update.keys())
        return other

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, getattr(self, name)) for name in self.model_fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are not changed: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SettingsModel) and dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self)})"


def written(field: str, value: object) -> str:
    """How a value of ``field`` is written."""
    if field.endswith("_bytes") and isinstance(value, int):
        return units.format_size(value)
    if field.endswith("_seconds") and isinstance(value, int | float):
        return units.format_duration(value)
    if field in ("file_mode", "dir_mode", "umask") and isinstance(value, int):
        return units.format_mode(value)
    return str(value)
