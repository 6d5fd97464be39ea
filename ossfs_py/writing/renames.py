"""Renames of directories, as the journal writes them down until they are over."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RenameRecord:
    """A directory that is renamed: everything below one prefix is copied below another, then
    deleted.

    As soon as all is copied, the rename counts: what the journal owes below the old prefix is owed
    below the new one.
    """

    old_prefix: str
    new_prefix: str
    is_copied: bool | None = False
    """Whether all is copied; None if its daemon did not write that down, as older versions."""
    over_directory: bool = False
    """Whether it takes the place of an empty directory, which stays if it is taken back."""
    etags: Mapping[str, str] = field(default_factory=dict)
    """Those of copies whose place an open file is to take, by those of what was copied."""
    first_tried_ns: int | None = None
    """When a mount first tried to end it and could not: what was stored since is no part of it."""

    def moved(self, key: str) -> str:
        """The new key of what has an old one."""
        return self.new_prefix + key[len(self.old_prefix) :]

    def to_json(self) -> str:
        """The text kept on disk."""
        return json.dumps(
            {
                "old": self.old_prefix,
                "new": self.new_prefix,
                "is_copied": self.is_copied,
                "over_directory": self.over_directory,
                "etags": dict(self.etags),
                "first_tried_ns": self.first_tried_ns,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "RenameRecord":
        """Read a record back.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: it is none.
        """
        fields: dict[str, Any] = json.loads(text)
        is_copied, tried_ns = fields.get("is_copied"), fields.get("first_tried_ns")
        return cls(
            old_prefix=str(fields["old"]),
            new_prefix=str(fields["new"]),
            is_copied=None if is_copied is None else bool(is_copied),
            over_directory=bool(fields.get("over_directory", False)),
            etags={str(old): str(new) for old, new in fields.get("etags", {}).items()},
            first_tried_ns=None if tried_ns is None else int(tried_ns),
        )
