"""Files written through the mount, on their way to the machines it shares blocks with."""

from ossfs_py.datapath.objectfile import CommittedHook
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.shared import HandingOn, LocalBytes
from ossfs_py.writing.dirty import DirtyFile


def sharing_written(shared: HandingOn | None) -> CommittedHook | None:
    """Hands the committed bytes that are in a local file on, behind the program that wrote them.

    None if there is nobody to share with. What streamed to the store from memory is in no file, and
    is fetched by whoever reads it first.
    """
    if shared is None:
        return None

    def committed(dirty: DirtyFile, version: ObjectVersion) -> None:
        lent = dirty.lend()
        if lent is not None:
            local = LocalBytes(lent.fd, lent.spans, lent.unchanged)
            shared.take_in(version, local, lent.give_back)

    return committed
