"""Empty objects that write-back owes the store, as the journal writes them down."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MarkerRecord:
    """A directory or symlink that was made here: its object's key, and what is stored with it."""

    ident: str
    key: str
    metadata: Mapping[str, str]

    def to_json(self) -> str:
        """The text kept on disk."""
        return json.dumps({"ident": self.ident, "key": self.key, "metadata": dict(self.metadata)})

    @classmethod
    def from_json(cls, text: str) -> "MarkerRecord":
        """Read a record back.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: it is none.
        """
        fields: dict[str, Any] = json.loads(text)
        metadata = {str(name): str(value) for name, value in fields["metadata"].items()}
        return cls(str(fields["ident"]), str(fields["key"]), metadata)
