"""The sources of credentials, and their renewal.

The first of these that applies is used:

1. ``anonymous``: none at all;
2. ``credentials_file``: an ossfs/s3fs password file;
3. ``profile``: that profile of the shared AWS configuration;
4. on an OSS endpoint ``OSS_ACCESS_KEY_ID`` + ``OSS_ACCESS_KEY_SECRET`` (+ ``OSS_SESSION_TOKEN``);
   on another endpoint these only if ``AWS_ACCESS_KEY_ID`` is not set;
5. botocore's chain: AWS_* environment, shared profile, SSO, web identity, container and instance
   roles (on an OSS endpoint the ECS instance's RAM role before EC2's), refreshed by botocore
   before they expire.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.environment import (
    AWS_VARIABLES,
    OSS_VARIABLES,
    KeyVariables,
    has_profiles,
    shared_files,
)
from ossfs_py.store.auth.passwordfile import read_password_file
from ossfs_py.store.auth.patience import PatientCall
from ossfs_py.store.auth.signing import AccessKey
from ossfs_py.store.auth.sourcefiles import check_shared_configuration, check_shared_credentials
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from ossfs_py.store.auth.session import ChainedKey

log = logging.getLogger(__name__)

_READ_AGAIN = "the credentials have changed and were read again (%s)"
_LOOK_SECONDS = 2.0
"""A request checks at most this often whether the credentials have changed: one stat(2) a file."""
_JUST_NOW_SECONDS = 1.0
"""A key read so recently is not read again: 32 requests are refused at once."""
_UNSURE_SECONDS = 10.0
"""The same if the key may not be the cause: every HEAD of a forbidden key would read it again."""

_PATIENCE_SECONDS = 7.0
"""Less than the 8 s within which a mount has to find its store; a credential_process with single
sign-on takes some seconds.
"""

_Fingerprint = tuple[int, int, int] | None


def _sendable(key: AccessKey, origin: str) -> AccessKey:
    """Returns ``key``. Secrets put together by hand often end with a line break.

    Raises:
        EnvironmentProblemError: it has characters that a header cannot contain.
    """
    sent = key.access_key + (key.token or "")
    if not (sent.isascii() and sent.isprintable()) or key.secret_key != key.secret_key.strip():
        raise EnvironmentProblemError(
            f"the credentials from {origin} have a line break or another character in them that"
            " no key has"
        )
    return key


@dataclass(frozen=True, slots=True)
class _Held:
    """Either a fixed key, or a chain that refreshes itself, or neither (anonymous).

    ``files``: the files that it was read from, in their state of then. ``origin``: their name for
    people.
    """

    origin: str
    fixed: AccessKey | None = None
    chain: "ChainedKey | None" = None
    files: tuple[tuple[Path, _Fingerprint], ...] = ()

    def key(self) -> AccessKey | None:
        """The key to sign with now; botocore asks its source before it expires.

        Raises:
            EnvironmentProblemError: the source gives none, or none that can be sent.
        """
        key = self.fixed if self.chain is None else self.chain.key()
        return key and _sendable(key, self.origin)

    def may_ask(self) -> bool:
        """Whether :meth:`key` may have to ask a service or a program."""
        return self.chain is not None and self.chain.may_ask()

    def is_outdated(self) -> bool:
        """Whether a file that it came from has changed."""
        return any(_fingerprint(path) != known for path, known in self.files)


class CredentialSource:
    """Supplies the present credentials. Safe for concurrent use.

    They change by themselves: files are checked every two seconds, roles and processes are asked
    before their credentials expire. If that fails, the last key stays in use; the store knows
    whether it is still valid.
    """

    def __init__(
        self,
        options: StoreOptions,
        metrics: Metrics,
        *,
        oss_first: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._oss_first = oss_first
        self._clock = clock
        self._changes = metrics.credential_refreshes.labels("changed")
        self._refusals = metrics.credential_refreshes.labels("refused")
        self._lock = threading.Lock()
        source = "the source of the credentials"
        self._loading = PatientCall(self._load, _PATIENCE_SECONDS, source)
        self._asking = PatientCall(self._ask, _PATIENCE_SECONDS, source)
        self._held: _Held | None = None
        self._key: AccessKey | None = None
        self._look_at = self._loaded_at = self._changed_at = float("-inf")
        self._complaint = ""
        self._told: set[str] = set()

    def current(self) -> AccessKey | None:
        """The key to sign with; None for anonymous. May ask a metadata service (blocking).

        Raises:
            EnvironmentProblemError: none was found, or its source is broken; never after the first
                key.
        """
        # While one request checks, the others use the present key; all wait only for the first key.
        if self._clock() >= self._look_at and self._lock.acquire(blocking=self._held is None):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._key

    def is_checked(self) -> bool:
        """Whether :meth:`known` is checked often enough; if not, :meth:`current` has to be called,
        which may wait.
        """
        return self._clock() < self._look_at

    @property
    def known(self) -> AccessKey | None:
        """The key that :meth:`current` returned last."""
        return self._key

    def origin(self) -> str:
        """The source of the key of :meth:`current`, in words; never the key."""
        return self._held.origin if self._held is not None else "not read yet"

    def refresh(self) -> None:
        """Read everything again. If that fails, the old credentials stay in use.

        Raises:
            EnvironmentProblemError: as :meth:`current`.
        """
        with self._lock:
            self._reload()

    def renew(self, asked_at: float, sure: bool) -> bool:
        """The store refused the key of a request that began at ``asked_at`` (monotonic). Returns
        whether there is another one now, read again if needed. Not ``sure``: the store may have
        refused the request for another reason.

        Raises:
            EnvironmentProblemError: it cannot be read.
        """
        with self._lock:
            age_seconds = self._clock() - self._loaded_at
            outdated = self._held is not None and self._held.is_outdated()
            old = outdated or age_seconds > (_JUST_NOW_SECONDS if sure else _UNSURE_SECONDS)
            if self._changed_at < asked_at and old:
                self._refusals.inc()
                self._reload()
                if self._changed_at >= asked_at:
                    log.info(_READ_AGAIN, self.origin())
            return self._changed_at >= asked_at

    def _look(self) -> None:
        held = self._held
        if held is None:
            self._reload()
            return
        self._look_at = self._clock() + _LOOK_SECONDS
        try:
            if held.is_outdated():
                self._reload()
                self._changes.inc()
                log.info(_READ_AGAIN, held.origin)
            else:
                self._take(self._asking.answer() if held.may_ask() else held.key())
        except EnvironmentProblemError as exc:
            self._look_at = self._clock() + _LOOK_SECONDS
            if self._complaint != str(exc):
                self._complaint = str(exc)
                log.warning("the credentials stay as they are: %s", exc)
        else:
            self._complaint = ""

    def _reload(self) -> None:
        try:
            self._held, key = self._loading.answer()
        finally:
            # Also after a failure or a hang, so that not every request asks the source in turn.
            self._loaded_at = self._clock()
        self._take(key)
        self._look_at = self._clock() + _LOOK_SECONDS

    def _take(self, key: AccessKey | None) -> None:
        if key != self._key:
            self._key = key
            self._changed_at = self._clock()

    def _ask(self) -> AccessKey | None:
        return self._held.key() if self._held is not None else None

    def _load(self) -> tuple[_Held, AccessKey | None]:
        held = self._find()
        return held, held.key()

    def _find(self) -> _Held:
        options = self._options
        if options.anonymous:
            return _Held("nowhere: requests are anonymous")
        if (path := options.credentials_file) is not None:
            # Before reading, so that a change during it is noticed at the next check.
            files = _fingerprints(path)
            return _Held(
                f"the password file {path}",
                fixed=read_password_file(path, options.bucket),
                files=files,
            )
        oss_goes_first = self._oss_first or not AWS_VARIABLES.are_set(os.environ)
        if options.profile is None and oss_goes_first and OSS_VARIABLES.are_set(os.environ):
            return _from_variables(OSS_VARIABLES)
        return self._from_chain()

    def _from_chain(self) -> _Held:
        profile = self._options.profile
        credentials_path, configuration_path = shared_files()
        files = _fingerprints(credentials_path, configuration_path)
        named_by_variables = profile is None and AWS_VARIABLES.are_set(os.environ)
        if named_by_variables and not has_profiles(profile):
            return _from_variables(AWS_VARIABLES, files)
        if named_by_variables:
            AWS_VARIABLES.key(os.environ)  # our own message for half a key
        else:
            # Before botocore runs the programs that the files name.
            self._tell_once(check_shared_credentials(credentials_path))
            self._tell_once(check_shared_configuration(configuration_path))
        from ossfs_py.store.auth.session import key_from_chain  # noqa: PLC0415 (loads botocore)

        found = key_from_chain(profile, oss_first=self._oss_first)
        if found is None:
            raise EnvironmentProblemError(
                "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or "
                "OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET), name a profile or a credentials "
                "file, or mount anonymously"
            )
        return _Held(found.origin, chain=found, files=files)

    def _tell_once(self, warning: str | None) -> None:
        if warning is not None and warning not in self._told:
            self._told.add(warning)
            log.warning("%s", warning)


def _from_variables(
    variables: KeyVariables, files: tuple[tuple[Path, _Fingerprint], ...] = ()
) -> _Held:
    origin = f"the environment ({variables.access_key})"
    if not variables.expire(os.environ):
        return _Held(origin, fixed=variables.key(os.environ), files=files)
    from ossfs_py.store.auth.session import expiring_key  # noqa: PLC0415 (loads botocore)

    return _Held(origin, chain=expiring_key(variables), files=files)


def _fingerprints(*paths: Path) -> tuple[tuple[Path, _Fingerprint], ...]:
    return tuple((path, _fingerprint(path)) for path in paths)


def _fingerprint(path: Path) -> _Fingerprint:
    """Changes with the content of a file; None if there is no such file."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ino, info.st_size
