"""Changes by other clients, as the namespace reports them, so that the kernel can be notified."""

from collections.abc import Callable
from dataclasses import dataclass

from ossfs_py.namespace.inode import Inode


def _nobody_told(*_about: object) -> None:
    """For a namespace that no kernel has mounted."""


@dataclass(frozen=True, slots=True)
class KernelNews:
    """The receiver of the reports. Called on the trio thread, in the middle of a step: nothing here
    may wait, fail, or ask the namespace to change.
    """

    content_changed: Callable[[Inode], None] = _nobody_told
    """The inode stands for another version now: its pages and attributes are worth nothing."""
    name_taken: Callable[[Inode, str, Inode], None] = _nobody_told
    """The name in the directory does not stand for the inode any more."""
    attributes_changed: Callable[[Inode], None] = _nobody_told
    """The attributes of the inode must be requested again; its pages are still valid."""
    name_appeared: Callable[[Inode, str], None] = _nobody_told
    """The name in the directory, of which was told that it is absent, may be there now."""


NOBODY = KernelNews()
"""No kernel has anything cached."""
