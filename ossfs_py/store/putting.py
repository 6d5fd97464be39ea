"""A PUT that takes no thread if the store can do without, and a thread if not."""

from collections.abc import Callable
from dataclasses import replace

import outcome

from ossfs_py.model import Body, CommitRequest, ObjectVersion
from ossfs_py.store.base import InlineWrites, ObjectStore

_INLINE_BYTES = 64 * 1024
"""A small file. Its bytes are copied once more for each request."""


class PutJob:
    """One PUT, for :class:`~ossfs_py.runtime.workers.Workers`."""

    def __init__(
        self, store: ObjectStore, puts: InlineWrites | None, request: CommitRequest, body: Body
    ) -> None:
        self._store = store
        self._puts = puts
        self._request = request
        self._body = body

    def put(self) -> ObjectVersion:
        """Make it in a thread."""
        return self._store.put(self._request, self._body)

    def begin(
        self,
        ended: Callable[[outcome.Outcome[ObjectVersion]], None],
        to_thread: Callable[[], None],
    ) -> bool:
        """See :data:`ossfs_py.runtime.workers.Inline`."""
        puts, body = self._puts, self._body
        if puts is None or not isinstance(body, bytes) or len(body) > _INLINE_BYTES:
            return False

        def repeat(may_have_happened: bool) -> None:
            if may_have_happened:
                condition = replace(self._request.condition, repeated=True)
                self._request = replace(self._request, condition=condition)
            to_thread()

        return puts.begin(self._request, body, ended, repeat)
