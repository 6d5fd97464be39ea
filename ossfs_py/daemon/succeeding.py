"""Taking a mount over from a daemon that serves it: all that can fail is tried before that ends."""

from importlib.metadata import version
from pathlib import Path

from ossfs_py.config import Settings
from ossfs_py.config.changeable import as_option, fixed_settings
from ossfs_py.daemon.options import fuse_options, store_options
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.filesystem.survival import open_survival
from ossfs_py.fuse.rehearsal import rehearse
from ossfs_py.host.handover import Predecessor
from ossfs_py.host.keeping import MountKeeper
from ossfs_py.host.kernelside import is_gone
from ossfs_py.store import open_store
from ossfs_py.store.base import ObjectStore
from ossfs_py.telemetry.metrics import Metrics

_CHECK_SECONDS = 8.0


def taken_from(
    predecessor: Predecessor, settings: Settings, keeper: MountKeeper, metrics: Metrics
) -> ObjectStore:
    """The store, known to answer; the daemon before has ended then. Blocks.

    Raises:
        EnvironmentProblemError: this daemon cannot go on, and the one before does.
    """
    here = fixed_settings(settings)
    changed = [
        as_option(name)
        for name, value in predecessor.settings.items()
        if here.get(name, value) != value
    ]
    if changed:
        raise EnvironmentProblemError(
            f"{' and '.join(changed)} cannot change while it is mounted: unmount, and mount again"
        )
    survival = open_survival(keeper.ledger)
    if survival.negotiated is None or survival.found_out is None:
        raise EnvironmentProblemError("the start of the mount is not recorded")
    rehearse(survival.negotiated, fuse_options(settings, Path(survival.found_out.mountpoint)))
    store = open_store(store_options(settings), metrics)
    try:
        store.check(settings.prefix, _CHECK_SECONDS)
        predecessor.wait_gone(version("ossfs-py"))
        if keeper.device is None or is_gone(keeper.device):
            raise EnvironmentProblemError("the mount ended before it was taken over")
    except BaseException:
        store.close()
        raise
    return store
