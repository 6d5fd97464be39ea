"""The settings of a mount that concern its namespace."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamespaceOptions:
    """Settings of one namespace.

    ``prefix`` is empty or ends with a slash. ``file_mode`` and ``dir_mode`` are permission bits
    with the umask already applied, used where an object's metadata says nothing.
    ``max_entries`` bounds, each by itself, the unreferenced inodes, the remembered metadata, the
    negative answers and the entries of all cached listings.
    """

    prefix: str = ""
    metadata_ttl_seconds: float = 60.0
    negative_ttl_seconds: float = 0.0
    posix_metadata: bool = False
    uid: int = 0
    gid: int = 0
    file_mode: int = 0o644
    dir_mode: int = 0o755
    max_entries: int = 200_000
    read_only: bool = False
    at_ns: int | None = None
    """Show the bucket as it was then, by the store's clock; None: as it is."""
    special_modes: bool = False
    """Whether set-user-ID, set-group-ID and sticky bits that metadata tells are shown."""
    guessed_for_uid: int | None = None
    """The mount's owner, if other users see the mount: only the owner may use an object whose
    stored mode is not known yet. None: the defaults above hold for everybody."""
