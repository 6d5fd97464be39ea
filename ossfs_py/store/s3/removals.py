"""Removing many objects with one request, if the store has DeleteObjects."""

import base64
import logging
from collections.abc import Sequence

from ossfs_py.errors import BucketMissingError, UnsupportedByStoreError
from ossfs_py.store.http.payload import BufferPayload
from ossfs_py.store.s3.bodies import md5
from ossfs_py.store.s3.documents import can_be_said, deletion, removed_keys
from ossfs_py.store.s3.error_map import AnswerError, judge
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.store.s3.wire import Request, WireClient

log = logging.getLogger(__name__)

_NOT_KNOWN = frozenset({400, 404, 405, 411, 501})
"""Answers of stores to a POST that they do not know, or expect in another form."""


class Remover:
    """DeleteObjects. Single requests remove unconfirmed keys, or get their errors."""

    def __init__(self, wire: WireClient, retrier: Retrier, traits: KnownTraits) -> None:
        self._wire = wire
        self._retrier = retrier
        self._traits = traits

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """See :meth:`ObjectStore.delete_many`. A repetition removes the remaining keys."""
        if self._traits.now.removals == "none":
            raise UnsupportedByStoreError("no DeleteObjects here", operation="DeleteObjects")
        sayable = [key for key in keys if can_be_said(key)]
        if not sayable:
            return list(keys)
        payload = BufferPayload(deletion(sayable))
        request = Request(
            "DeleteObjects",
            "POST",
            query=[("delete", "")],
            # S3 requires some digest, OSS this one.
            headers={"content-md5": base64.b64encode(md5(payload)).decode()},
            payload=payload,
        )

        def attempt(state: Attempt) -> set[str]:
            try:
                return removed_keys(self._wire.once(request, state))
            except AnswerError as error:
                if judge(error).retry or judge(error).cause is BucketMissingError:
                    raise
                if error.status in _NOT_KNOWN:
                    return self._do_without(str(error))
                log.info("objects are removed one by one: %s", error)
                return set()

        removed = self._retrier.run("DeleteObjects", sayable[0], attempt)
        return [key for key in keys if key not in removed]

    def _do_without(self, why: str) -> set[str]:
        log.info("this store has no DeleteObjects: objects are removed one by one (%s)", why)
        self._traits.learn(removals="none")
        return set()
