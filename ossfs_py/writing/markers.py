"""The journal's records of empty objects that write-back has not stored yet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MarkerRecord:
    """A directory or symlink that was made here: its object's key and metadata."""

    ident: str
    key: str
    metadata: Mapping[str, str]
    order: int = field(default=0, compare=False)
    """As in :class:`~ossfs_py.writing.records.DirtyRecord`."""

    def to_json(self) -> str:
        """The text kept on disk."""
        return json.dumps(
            {
                "ident": self.ident,
                "key": self.key,
                "metadata": dict(self.metadata),
                "order": self.order,
            }
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
