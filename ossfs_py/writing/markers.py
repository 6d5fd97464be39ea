"""The journal's records of empty objects that write-back has not stored yet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any


@dataclass(frozen=True, slots=True)
class MarkerRecord:
    """A directory or symlink that was made here: its object's key and metadata."""

    ident: str
    key: str
    metadata: Mapping[str, str]
    order: int = field(default=0, compare=False)
    """As in :class:`~ossfs_py.writing.records.DirtyRecord`."""

    def to_json(self, order: int | None = None) -> str:
        """The text kept on disk, by hand: the encoder takes three times as long. ``order`` replaces
        the record's own.
        """
        described = ", ".join(
            [f"{_quoted(name)}: {_quoted(value)}" for name, value in self.metadata.items()]
        )
        return (
            f'{{"ident": {_quoted(self.ident)}, "key": {_quoted(self.key)},'
            f' "metadata": {{{described}}}, "order": {self.order if order is None else order}}}'
        )

    @classmethod
    def from_json(cls, text: str) -> "MarkerRecord":
        """Read a record back.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: the text is no record.
        """
        fields: dict[str, Any] = json.loads(text)
        metadata = {str(name): str(value) for name, value in fields["metadata"].items()}
        order = int(fields.get("order", 0))
        return cls(str(fields["ident"]), str(fields["key"]), metadata, order)
