"""Removing many objects: in batches where the store has them, side by side where it has not."""

from collections.abc import Callable, Sequence

from ossfs_py.errors import UnsupportedByStoreError
from ossfs_py.namespace.pending import map_bounded
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import MAX_DELETED_KEYS, ObjectStore


async def remove_all(
    store: ObjectStore,
    workers: Workers,
    keys: Sequence[str],
    *,
    limit: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Remove objects, ``limit`` requests at a time, behind urgent work.

    What a batch does not say to be removed is asked for by itself, which tells why it cannot be.
    ``progress`` is told how many are gone.

    Raises:
        StoreError: one cannot be removed; others may be gone.
    """
    left = list(keys)
    if len(left) > 1:
        batches = [left[at : at + MAX_DELETED_KEYS] for at in range(0, len(left), MAX_DELETED_KEYS)]
        try:
            answers = await map_bounded(workers, store.delete_many, batches, limit=limit)
        except UnsupportedByStoreError:
            pass
        else:
            left = [key for answer in answers for key in answer]
    gone = len(keys) - len(left)
    if progress is not None and gone:
        progress(gone)
    await map_bounded(
        workers,
        store.delete,
        left,
        limit=limit,
        progress=None if progress is None else lambda count: progress(gone + count),
    )
