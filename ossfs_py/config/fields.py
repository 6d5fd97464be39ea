"""All fields of the settings, and what follows from them."""

from ossfs_py.config.groups.data import DataSettings
from ossfs_py.config.groups.limits import LimitSettings
from ossfs_py.config.groups.mount import MountSettings
from ossfs_py.config.groups.names import NameSettings
from ossfs_py.config.groups.running import RunningSettings
from ossfs_py.config.groups.store import StoreSettings
from ossfs_py.config.groups.writing import WritingSettings

TRASH = ".ossfs-py-trash/"
"""Default place of the copies, below the mounted prefix. The mount shows no name that begins so."""


# The fields of the last base go first.
class SettingFields(
    RunningSettings,
    MountSettings,
    LimitSettings,
    WritingSettings,
    NameSettings,
    DataSettings,
    StoreSettings,
):
    """All settings, before the rules of ``conflicts`` have checked whether they go together."""

    @property
    def source(self) -> str:
        """``bucket`` or ``bucket/prefix``, as mount tables and messages show it."""
        return f"{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def outlives_daemon(self) -> bool:
        """Whether another daemon is to go on with the mount when its own has ended."""
        return bool(self.restarts) or self.keeper is not None

    @property
    def trash_prefix(self) -> str:
        """Below which keys copies are kept, or would be."""
        return self.trash or f"{self.prefix}{TRASH}"

    @property
    def effective_file_mode(self) -> int:
        """Permission bits of files without a stored mode, the umask applied."""
        return _masked(self.file_mode, 0o666, self.umask)

    @property
    def effective_dir_mode(self) -> int:
        """Permission bits of directories without a stored mode, the umask applied."""
        return _masked(self.dir_mode, 0o777, self.umask)


def _masked(mode: int | None, default: int, umask: int | None) -> int:
    if mode is None:
        return default & ~(0o022 if umask is None else umask)
    return mode & ~(umask or 0)
