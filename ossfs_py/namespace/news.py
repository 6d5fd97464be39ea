"""What the namespace tells of changes that others made, so that the kernel can be told."""

from collections.abc import Callable
from dataclasses import dataclass

from ossfs_py.namespace.inode import Inode


def _nobody_told(*_about: object) -> None:
    """Of a namespace that no kernel has mounted."""


@dataclass(frozen=True, slots=True)
class KernelNews:
    """Who is told. Called on the trio thread, in the middle of a step: nothing here may wait, fail
    or ask the namespace to change.
    """

    content_changed: Callable[[Inode], None] = _nobody_told
    """The inode stands for another version now: its pages and attributes are worth nothing."""
    name_taken: Callable[[Inode, str, Inode], None] = _nobody_told
    """The name in the directory does not stand for the inode any more."""
    attributes_changed: Callable[[Inode], None] = _nobody_told
    """What was told of the inode is to be asked again; its pages are as good as before."""
    name_appeared: Callable[[Inode, str], None] = _nobody_told
    """The name in the directory, of which was told that it is absent, may be there now."""


NOBODY = KernelNews()
"""No kernel has anything cached."""
