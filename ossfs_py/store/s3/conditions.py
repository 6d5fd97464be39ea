"""Conditional writes: how this store says them, found out once, at first need."""

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ossfs_py.errors import (
    AccessDeniedError,
    ConditionFailedError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
)
from ossfs_py.model import Condition, ObjectInfo
from ossfs_py.store.http.payload import BufferPayload
from ossfs_py.store.options import Choice, StoreOptions
from ossfs_py.store.s3.wire import Request, WireClient

log = logging.getLogger(__name__)

Dialect = Literal["http", "oss", "none"]
"""How to refuse overwriting: If-None-Match: *, x-oss-forbid-overwrite: true, or not at all."""

_FORBID_OVERWRITE = {"x-oss-forbid-overwrite": "true"}
_IF_NONE_MATCH = {"if-none-match": "*"}
_IMPOSSIBLE_ETAG = "0" * 32


@dataclass(frozen=True, slots=True)
class ConditionSupport:
    """What the probe learnt."""

    create: Dialect
    replace: bool


def scratch_key(options: StoreOptions) -> str:
    """A key for a probe, below the mount's own prefix."""
    return f"{options.scratch_prefix}.ossfs-py-probe-{secrets.token_hex(8)}"


class Conditions:
    """Puts a :class:`Condition` into this store's words. Safe for concurrent use."""

    def __init__(
        self,
        wire: WireClient,
        options: StoreOptions,
        head: Callable[[str], ObjectInfo],
        *,
        is_oss: bool,
    ) -> None:
        self._wire = wire
        self._options = options
        self._head = head
        self._is_oss = is_oss
        self._lock = threading.Lock()
        self._found: ConditionSupport | None = None
        self._warned = False

    def found(self) -> ConditionSupport:
        """What the store can do; probes it if that is neither known nor configured."""
        # Held across the probe's requests on purpose: whoever needs its outcome waits for it.
        with self._lock:
            if self._found is not None:
                return self._found
            try:
                self._found = self._configured() or self._probe_writes()
            except (AccessDeniedError, StoreUnavailableError) as exc:
                log.info("conditional writes could not be probed yet: %s", exc)
                return ConditionSupport("none", replace=False)
            return self._found

    def headers_for(self, operation: str, key: str, condition: Condition) -> dict[str, str]:
        """The headers that make the store check ``condition``.

        Where the store cannot, the condition is checked with a HEAD right now, which leaves a
        short moment in which another client may write.

        Raises:
            ConditionFailedError: that HEAD found the condition not met.
        """
        if not condition.limits:
            return {}
        found = self.found()
        if operation == "CompleteMultipartUpload":
            # Some stores that check PUTs ignore the condition of a completion (moto does), so
            # it is looked at beforehand as well: one request beside a whole upload.
            self._check_by_head(operation, key, condition)
        if condition.only_if_absent and found.create != "none":
            return dict(_IF_NONE_MATCH if found.create == "http" else _FORBID_OVERWRITE)
        if condition.only_if_etag is not None and found.replace:
            return {"if-match": f'"{condition.only_if_etag}"'}
        self._warn_once()
        if operation != "CompleteMultipartUpload":
            self._check_by_head(operation, key, condition)
        return {}

    def _warn_once(self) -> None:
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            log.warning(
                "this store has no conditional writes: conditions are checked with a HEAD just "
                "before the write, which is not atomic"
            )

    def _check_by_head(self, operation: str, key: str, condition: Condition) -> None:
        try:
            etag: str | None = self._head(key).etag
        except ObjectMissingError:
            etag = None
        if etag != condition.only_if_etag:
            raise ConditionFailedError(
                "the key exists" if condition.only_if_absent else "the key holds another version",
                operation=operation,
                key=key,
            )

    def _configured(self) -> ConditionSupport | None:
        choice: Choice = self._options.conditional_writes
        if choice == "auto":
            return None
        if choice == "off":
            return ConditionSupport("none", replace=False)
        return (
            ConditionSupport("oss", replace=False)
            if self._is_oss
            else ConditionSupport("http", replace=True)
        )

    def _probe_writes(self) -> ConditionSupport:
        """Write a scratch key, then try to overwrite it under conditions that must fail."""
        key = scratch_key(self._options)
        try:
            self._put(key, {})
        except (AccessDeniedError, StoreUnavailableError):
            raise
        except StoreError as exc:
            log.info("conditional writes could not be probed: %s", exc)
            return ConditionSupport("none", replace=False)
        try:
            create: Dialect = "none"
            if self._refuses(key, _IF_NONE_MATCH):
                create = "http"
            elif self._refuses(key, _FORBID_OVERWRITE):
                create = "oss"
            replace = self._refuses(key, {"if-match": f'"{_IMPOSSIBLE_ETAG}"'})
        finally:
            self._remove(key)
        log.info("conditional writes: create by %s, replace %s", create, replace)
        return ConditionSupport(create, replace)

    def _put(self, key: str, headers: dict[str, str]) -> str:
        request = Request("PutObject", "PUT", key, headers=headers, payload=BufferPayload(b"x"))
        return self._wire.call(request).headers.get("etag", "").strip('"')

    def _refuses(self, key: str, headers: dict[str, str]) -> bool:
        try:
            self._put(key, headers)
        except ConditionFailedError:
            return True
        except UnsupportedByStoreError:
            return False
        except (AccessDeniedError, StoreUnavailableError):
            raise
        except StoreError as exc:
            log.debug("probe with %s: %s", sorted(headers), exc)
        return False

    def _remove(self, key: str) -> None:
        try:
            self._wire.call(Request("DeleteObject", "DELETE", key))
        except StoreError as exc:
            log.warning("the scratch key of a probe could not be removed: %s", exc)
