"""The journal's records of renames of directories."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RenameRecord:
    """A directory that is being renamed: everything below one prefix is copied below another, and
    then deleted.

    As soon as everything is copied, or at once if it is promised, the rename counts: the journal's
    records below the old prefix then apply below the new one.
    """

    old_prefix: str
    new_prefix: str
    is_copied: bool | None = False
    """Whether everything is copied; None if its daemon, an older version, did not record that."""
    over_directory: bool = False
    """Whether it replaces an empty directory, which stays if the rename is undone."""
    etags: Mapping[str, str] = field(default_factory=dict)
    """ETags of copies that will replace open files, by those of their sources."""
    first_tried_ns: int | None = None
    """When a mount first tried to finish it, and failed: objects stored since do not belong to it.
    """

    is_promised: bool = False
    """Its program has been told that it is done."""

    def moved(self, key: str) -> str:
        """The new key for an old one."""
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
                "is_promised": self.is_promised,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "RenameRecord":
        """Read a record back.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: the text is no record.
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
            is_promised=bool(fields.get("is_promised", False)),
        )
