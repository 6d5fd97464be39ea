"""Files of a mount that a command brings back or makes beside it: before and after."""

import logging

from ossfs_py.control.server import ControlError
from ossfs_py.errors import NoSuchEntryError, NotADirectoryPathError, StoreError
from ossfs_py.filesystem.operations import Filesystem

log = logging.getLogger(__name__)


async def require_saved(filesystem: Filesystem, path: str) -> None:
    """Refuse a file with unsaved changes: closing it would overwrite the result of the call.

    Raises:
        ControlError: it has changes that the bucket has not got.
        StoreError: what is there could not be found out.
    """
    try:
        found = await filesystem.describe(path)
    except (NoSuchEntryError, NotADirectoryPathError):
        return
    if found.unsaved:
        raise ControlError(f"{path!r} is being written: close it first")


async def look_again(filesystem: Filesystem, path: str) -> None:
    """The mount looks at once, at the directory that the path is in too."""
    for place in (path.rpartition("/")[0], path):
        try:
            await filesystem.refresh(place)
        except (NoSuchEntryError, NotADirectoryPathError, StoreError) as exc:
            log.info("%r is not looked at again: %s", place, exc)
