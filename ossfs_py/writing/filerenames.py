"""The journal's records of stored files that have a new name here, and not yet at the store."""

import json
from dataclasses import dataclass, field
from typing import Any

from ossfs_py.writing.segments import new_ident


@dataclass(frozen=True, slots=True)
class FileRenameRecord:
    """A file whose program has been told that it is renamed: its object is copied to its new key,
    and then deleted as one that was removed.
    """

    old_key: str
    new_key: str
    etag: str
    """Of the object: others may have stored another one under the old key since."""
    ident: str = field(default_factory=new_ident)

    def to_json(self) -> str:
        """The text kept on disk."""
        return json.dumps(
            {"old": self.old_key, "new": self.new_key, "etag": self.etag, "ident": self.ident}
        )

    @classmethod
    def from_json(cls, text: str) -> "FileRenameRecord":
        """Read a record back.

        Raises:
            ValueError, LookupError, TypeError: the text is no record.
        """
        fields: dict[str, Any] = json.loads(text)
        names = (fields["old"], fields["new"], fields["etag"], fields["ident"])
        return cls(*(str(each) for each in names))
