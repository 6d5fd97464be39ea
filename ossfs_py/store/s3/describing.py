"""The description of an object beside its bytes, carried over to every object that replaces it.

This module alone knows all of it: type, Cache-Control and similar headers, user metadata, the
redirect of a website, storage class, encryption, tags and access rights.

================  =======================================  ====================================
of the object     is known from                            and kept by
================  =======================================  ====================================
content headers   HEAD                                     headers; copies keep them themselves
user metadata     HEAD                                     headers: the writer says all of it
storage class     LIST and HEAD                            a header, of copies too
encryption        HEAD                                     headers, of copies too
redirect          HEAD                                     a header, of copies too
tags              HEAD tells how many; if there are any,   a header; copies of whole objects
                  or it does not tell, a request           keep them themselves
access rights     a request, only with ``--acl keep``      headers of grants, of copies too
================  =======================================  ====================================
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from ossfs_py.errors import (
    AccessDeniedError,
    BucketMissingError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
)
from ossfs_py.model import CommitRequest, ObjectInfo
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.payload import BufferPayload
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.bodies import digest_headers
from ossfs_py.store.s3.description import (
    kept_headers,
    kept_storage_class,
    storage_class_header,
)
from ossfs_py.store.s3.documents import granted, tagging, tags
from ossfs_py.store.s3.error_map import AnswerError, judge
from ossfs_py.store.s3.heads import version_query
from ossfs_py.store.s3.probing import Prober
from ossfs_py.store.s3.queries import Reader
from ossfs_py.store.s3.retry import Attempt
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.store.s3.wire import Answer, Request, WireClient

log = logging.getLogger(__name__)

T = TypeVar("T")

TAGGING = "x-amz-tagging"


def request_of_tags(key: str, said: str) -> Request:
    """PutObjectTagging; ``said`` as the header ``x-amz-tagging`` has it."""
    payload = BufferPayload(tagging(said))
    query, headers = [("tagging", "")], digest_headers(payload, "md5")
    return Request("PutObjectTagging", "PUT", key, query, headers, payload)


class Describer:
    """Makes the headers that describe an object. Blocking; safe for concurrent use."""

    def __init__(
        self,
        wire: WireClient,
        reader: Reader,
        prober: Prober,
        traits: KnownTraits,
        options: StoreOptions,
    ) -> None:
        self._wire = wire
        self._reader = reader
        self._prober = prober
        self._traits = traits
        self._class_of_new = options.storage_class
        self._keeps_encryption = options.sse is None and options.sse_key_file is None
        self._keeps_rights = options.acl == "keep"
        self._lock = threading.Lock()
        self._cannot_try = False
        self._told: set[str] = set()

    def of_new_bytes(self, request: CommitRequest) -> dict[str, str]:
        """Headers of an upload.

        Raises:
            StoreError: the description of the replaced object could not be read.
        """
        like = self._known(request.like)
        if like is None:
            return self.of_new_object(request)
        wanted = storage_class_header(self._class_of(like, readable=True))
        return self._said(request) | wanted | self._kept(like, self._all_tags_of(like))

    def of_new_object(self, request: CommitRequest) -> dict[str, str]:
        """As :meth:`of_new_bytes`, for an object that replaces none; no request is needed."""
        return self._said(request) | storage_class_header(self._class_of_new)

    def of_copy(self, request: CommitRequest, source_key: str) -> dict[str, str]:
        """Headers of a copy of a whole object with new metadata; the store copies its tags."""
        like = self._known(request.like)
        headers = self._said(request) | {"x-amz-metadata-directive": "REPLACE"}
        return headers | self._beside_metadata(like, source_key)

    def of_plain_copy(self, like: ObjectInfo | None, source_key: str) -> dict[str, str]:
        """Headers of a copy that keeps the metadata. A request is sent only for what ``like``
        lacks.
        """
        return self._beside_metadata(like, source_key)

    def of_parts_copied(self, request: CommitRequest) -> dict[str, str]:
        """Headers of an upload whose parts are copies: the store copies no description."""
        like = self._known(request.like)
        wanted = self._class_of_new if like is None else self._class_of(like, readable=False)
        headers = self._said(request) | storage_class_header(wanted)
        return headers if like is None else headers | self._kept(like, self._all_tags_of(like))

    def tags_of(self, like: ObjectInfo) -> str:
        """Its tags in the format of the header ``x-amz-tagging``; empty if it has none."""
        if not like.tag_count:
            return ""
        return self._ask_tags(like)

    def _all_tags_of(self, like: ObjectInfo) -> str:
        """The same if the store copies no description: tags are also requested if a HEAD does not
        say whether there are any (LocalStack).
        """
        if like.tag_count or self._counts_tags():
            return self.tags_of(like)
        return self._ask_tags(like)

    def _counts_tags(self) -> bool:
        """Whether a HEAD always reports the number of tags; tried if not known."""
        with self._lock:
            known = self._traits.now.tag_counts
            if known is None and not self._cannot_try:
                try:
                    known = self._prober.tag_counts()
                except StoreError as exc:
                    # Without the right to write tags, they cannot be kept either.
                    self._cannot_try = isinstance(exc, AccessDeniedError)
                    log.info("whether a HEAD tells of tags is not known yet: %s", exc)
                else:
                    self._traits.learn(tag_counts=known)
            return known != "untold"

    def denied(self, key: str) -> list[StoreError]:
        """See :meth:`ObjectStore.denied_descriptions`."""
        asking = [
            Request("GetObjectTagging", "GET", key, [("tagging", "")]),
            request_of_tags(key, ""),
        ]
        if self._keeps_rights:
            asking.append(Request("GetObjectAcl", "GET", key, [("acl", "")]))
        found: list[StoreError] = []
        for request in asking:
            try:
                self._wire.once(request, Attempt())
            except NoAnswerError:
                continue
            except AnswerError as error:
                if judge(error).cause is AccessDeniedError:
                    text, name, ident = str(error), request.operation, error.request_id
                    denied = AccessDeniedError(text, operation=name, key=key, request_id=ident)
                    found.append(denied)
        return found

    def tags_refused(self) -> None:
        """The store, or its policy, does not accept the tags of an upload."""
        self._tell("tags", "tags of changed objects are lost: the store refuses them with uploads")

    # -- inside ----------------------------------------------------------------------------------

    @staticmethod
    def _said(request: CommitRequest) -> dict[str, str]:
        headers = {f"x-amz-meta-{name}": value for name, value in request.metadata.items()}
        if request.content_type is not None:
            headers["content-type"] = request.content_type
        return headers

    def _known(self, like: ObjectInfo | None) -> ObjectInfo | None:
        """``like`` in full, if it only comes from a LIST."""
        if like is None or like.described is not None:
            return like
        try:
            return self._reader.head(like.key)
        except ObjectMissingError:
            return None

    def _class_of(self, like: ObjectInfo, *, readable: bool) -> str | None:
        known = kept_storage_class(like, readable=readable)
        # This mount made it a moment ago, and no answer has reported its class since.
        made_here = known is None and like.described is not None
        return self._class_of_new if made_here else known

    def _beside_metadata(self, like: ObjectInfo | None, source_key: str) -> dict[str, str]:
        if like is None:
            return storage_class_header(self._class_of_new)
        headers = storage_class_header(self._class_of(like, readable=False))
        headers |= self._kept(like, self.tags_of(like) if like.key != source_key else "")
        if TAGGING in headers:
            headers["x-amz-tagging-directive"] = "REPLACE"
        return headers

    def _kept(self, like: ObjectInfo, tags_kept: str) -> dict[str, str]:
        headers = kept_headers(like, encryption=self._keeps_encryption)
        if tags_kept:
            headers |= {TAGGING: tags_kept}
        if self._keeps_rights:
            headers |= self._ask("GetObjectAcl", "acl", like, granted) or {}
        return headers

    def _ask_tags(self, like: ObjectInfo) -> str:
        return self._ask("GetObjectTagging", "tagging", like, tags) or ""

    def _ask(
        self, operation: str, about: str, like: ObjectInfo, read: Callable[[Answer], T]
    ) -> T | None:
        """One more request about an object; None, logged once, if it is not answered."""
        try:
            query = [(about, ""), *version_query(like.version.version_id)]
            return read(self._wire.call(Request(operation, "GET", like.key, query)))
        except ObjectMissingError:
            return None
        except (StoreUnavailableError, BucketMissingError):
            raise
        except StoreError as exc:
            self._tell(about, f"{about} of changed objects is lost, as it cannot be asked: {exc}")
            return None

    def _tell(self, about: str, sentence: str) -> None:
        with self._lock:
            is_news = about not in self._told
            self._told.add(about)
        if is_news:
            log.warning("%s", sentence)
