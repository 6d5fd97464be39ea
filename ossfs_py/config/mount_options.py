"""``-o name=value,flag`` as mount(8) and fstab write it."""

import re
from dataclasses import dataclass, field

_SEPARATOR = re.compile(r"(?<!\\),")

# Names that mount(8), systemd and libfuse give a meaning of their own. They are either done
# before a mount helper runs or make no difference to a FUSE file system.
_IGNORED_NAMES = """
    defaults rw auto noauto nofail _netdev user users nouser owner group comment exec suid dev
    atime relatime norelatime strictatime nostrictatime lazytime nolazytime diratime nodiratime
    sync async dirsync loud silent mand nomand iversion noiversion default_permissions
    max_read fsname subtype context rootcontext
"""
_IGNORED = frozenset(_IGNORED_NAMES.split())
_IGNORED_PREFIXES = ("x-", "X-", "comment=")
_RESTRICTIONS = ("noexec", "nosuid", "nodev", "noatime")


@dataclass
class MountOptions:
    """The options of ``-o``, in order: our own, and restrictions for the kernel."""

    own: list[tuple[str, str | None]] = field(default_factory=list)
    """Field-like name (``cache_size``) and value; None for a bare flag."""
    read_only: bool = False
    kernel_options: list[str] = field(default_factory=list)


def split_options(text: str) -> list[str]:
    """The words of one ``-o`` argument. ``\\,`` is a comma inside a word."""
    return [item.strip().replace("\\,", ",") for item in _SEPARATOR.split(text)]


def parse_mount_options(texts: tuple[str, ...]) -> MountOptions:
    """Take several ``-o`` arguments apart.

    Names that only mount(8) knows are dropped; whether the others exist is the caller's matter.
    """
    found = MountOptions()
    for item in (item for text in texts for item in split_options(text)):
        name, equals, value = item.partition("=")
        if not name or name in _IGNORED or name.startswith(_IGNORED_PREFIXES):
            # The last of ro and rw counts, as for mount(8).
            found.read_only = found.read_only and name != "rw"
        elif name == "ro":
            found.read_only = True
        elif name in _RESTRICTIONS:
            found.kernel_options.append(name)
        else:
            found.own.append((name.replace("-", "_"), value if equals else None))
    return found
