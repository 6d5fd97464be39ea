"""Conditional writes: the form in which this store accepts them, found out at first need."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ossfs_py.errors import (
    ConditionFailedError,
    ObjectMissingError,
    StoreError,
)
from ossfs_py.model import Condition, ObjectInfo, is_etag
from ossfs_py.store.options import Choice, StoreOptions
from ossfs_py.store.s3.error_map import MAY_PASS
from ossfs_py.store.s3.probing import FORBID_OVERWRITE, IF_NONE_MATCH, Prober
from ossfs_py.store.s3.traits import USELESS, Create, KnownTraits, Replace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConditionSupport:
    """The conditions that the store accepts for a PUT."""

    create: Create
    replace: Replace


class Conditions:
    """Translates a :class:`Condition` for this store. Safe for concurrent use."""

    def __init__(
        self,
        prober: Prober,
        traits: KnownTraits,
        options: StoreOptions,
        head: Callable[[str], ObjectInfo],
        *,
        is_oss: bool,
    ) -> None:
        self._prober = prober
        self._traits = traits
        self._options = options
        self._head = head
        self._is_oss = is_oss
        self._lock = threading.Lock()
        self._warned = False
        self._hopeless = False
        """The store fails in a way that will not pass: it is neither unavailable nor forbidding."""

    def found(self) -> ConditionSupport:
        """The abilities of the store; probes if they are neither known nor configured."""
        configured = self._configured()
        if configured is not None:
            return configured
        # Held during the probe's requests on purpose: other callers need its outcome and wait for
        # it.
        with self._lock:
            known = self._traits.now
            if known.create is not None and known.replace is not None:
                return ConditionSupport(known.create, known.replace)
            if self._hopeless:
                return ConditionSupport("refused", "refused")
            try:
                create, replace = self._prober.conditional_puts()
            except StoreError as exc:
                # A failure that may pass is tried again with the next write.
                self._hopeless = not isinstance(exc, MAY_PASS)
                log.info("conditional writes could not be probed: %s", exc)
                return ConditionSupport("refused", "refused")
            log.info("conditional writes: create by %s, replace by ETags %s", create, replace)
            self._traits.learn(create=create, replace=replace)
            support = ConditionSupport(create, replace)
            if (
                create == "http" and known.winners is None
            ):  # OSS's own header is the promise of one vendor
                self._count_winners()
            return support

    def completions_checked(self) -> bool:
        """Whether the store checks the condition of a completion; probes it if not known."""
        found = self.found()
        guard = _guard(Condition(only_if_absent=True), found)
        with self._lock:
            known = self._traits.now.completions
            if known is None and guard and self._configured() is None:
                try:
                    known = self._prober.completions(guard)
                except StoreError as exc:
                    log.info("conditions of multipart uploads could not be probed yet: %s", exc)
                    return False
                log.info("conditions of multipart uploads are %s", known)
                self._traits.learn(completions=known)
            return known == "checked"

    def headers_for(self, operation: str, key: str, condition: Condition) -> dict[str, str]:
        """The headers that make the store check ``condition``.

        If the store cannot, the condition is checked with a HEAD now, which leaves a short moment
        in which another client may write.

        Raises:
            ConditionFailedError: that HEAD showed that the condition does not hold.
        """
        if not condition.limits:
            return {}
        guard = _guard(condition, self.found())
        pinned = condition.only_if_etag is None or is_etag(condition.only_if_etag)
        if not guard and pinned:
            self._warn_once()
        # Some stores that check PUTs ignore the condition of a completion (Ceph, moto). Unless it
        # is known to be checked, a HEAD checks it before: one request beside a whole upload.
        ends = operation == "CompleteMultipartUpload"
        if not guard or (ends and self._traits.now.completions != "checked"):
            self._check_by_head(operation, key, condition)
        return guard

    def known_headers(self, condition: Condition) -> dict[str, str] | None:
        """As :meth:`headers_for` a PUT, without a request; None if that needs one."""
        if not condition.limits:
            return {}
        found = self._configured()
        if found is None:
            known = self._traits.now
            if known.create is None or known.replace is None:
                return None
            found = ConditionSupport(known.create, known.replace)
        return _guard(condition, found) or None

    def _count_winners(self) -> None:
        """Warn, when the store's conditions become known, if O_EXCL does not work as it should."""
        try:
            winners = self._prober.winners(IF_NONE_MATCH)
        except StoreError as exc:
            log.info("whether creating is atomic could not be probed: %s", exc)
            return
        self._traits.learn(winners=winners)
        if winners == "several":
            log.warning(
                "this store's conditional writes are not atomic: if two hosts create a file at the "
                "same moment (O_EXCL), both may be told that it is theirs"
            )

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
            return ConditionSupport("refused", "refused")
        return (
            ConditionSupport("oss", "refused")
            if self._is_oss
            else ConditionSupport("http", "quoted")
        )


def _guard(condition: Condition, found: ConditionSupport) -> dict[str, str]:
    """``condition`` as a header; none if the store supports no such header."""
    if condition.only_if_absent:
        return dict({"http": IF_NONE_MATCH, "oss": FORBID_OVERWRITE}.get(found.create, {}))
    etag = condition.only_if_etag
    if etag is not None and is_etag(etag) and found.replace not in USELESS:
        return {"if-match": f'"{etag}"' if found.replace == "quoted" else etag}
    return {}
