"""Where credentials come from, and how they are read again.

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

import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

import botocore.credentials
import botocore.exceptions
import botocore.session

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.ecs_role import EcsRoleProvider
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.signing import AccessKey

# Instance and container metadata are asked with this patience, so that a machine without roles
# learns of missing credentials within the 10 s a mount may take.
_METADATA_TIMEOUT_SECONDS = 1
_METADATA_ATTEMPTS = 2

_OSS_VARIABLES = {
    "access_key": "OSS_ACCESS_KEY_ID",
    "secret_key": "OSS_ACCESS_KEY_SECRET",
    "token": "OSS_SESSION_TOKEN",
    "expiry_time": "OSS_CREDENTIAL_EXPIRATION",
}


def make_session(profile: str | None) -> botocore.session.Session:
    """A botocore session of ``profile`` with short metadata timeouts.

    Raises:
        EnvironmentProblemError: the profile or the configuration file is broken.
    """
    session = botocore.session.Session(profile=profile)
    session.set_config_variable("metadata_service_timeout", _METADATA_TIMEOUT_SECONDS)
    session.set_config_variable("metadata_service_num_attempts", _METADATA_ATTEMPTS)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound:
        raise EnvironmentProblemError(
            f"the profile {profile or session.profile!r} is not in the AWS configuration"
        ) from None
    except botocore.exceptions.ConfigParseError as exc:
        raise EnvironmentProblemError(
            f"the AWS configuration file {exc.kwargs.get('path', '')} cannot be parsed"
        ) from None
    return session


def read_password_file(path: Path, bucket: str) -> AccessKey:
    """The entry for ``bucket`` of an ossfs/s3fs password file; a line without a bucket fits all.

    Raises:
        EnvironmentProblemError: unreadable, readable by others, a broken line, or no entry. The
            sentence names the line, never its content.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read().decode()
    except UnicodeDecodeError:
        raise EnvironmentProblemError(f"the credentials file {path} is not a text file") from None
    except OSError as exc:
        raise EnvironmentProblemError(
            f"the credentials file {path} cannot be read: {exc.strerror}"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EnvironmentProblemError(
            f"the credentials file {path} can be read by others (mode {mode:04o}): run chmod 600"
        )
    default: AccessKey | None = None
    special: AccessKey | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        fields = line.split(":")
        if len(fields) not in (2, 3) or not all(fields) or any(c.isspace() for c in line):
            raise EnvironmentProblemError(
                f"line {number} of the credentials file {path} is neither id:secret nor "
                "bucket:id:secret"
            )
        key = AccessKey(fields[-2], fields[-1])
        if len(fields) == 2:
            default = default or key
        elif fields[0] == bucket:
            special = special or key
    found = special or default
    if found is None:
        raise EnvironmentProblemError(
            f"the credentials file {path} has no entry for the bucket {bucket!r}"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Held:
    """Either a fixed key, or a chain that refreshes itself, or neither (anonymous)."""

    fixed: AccessKey | None = None
    chain: botocore.credentials.Credentials | None = None


class CredentialSource:
    """Hands out the credentials of the moment. Safe for concurrent use."""

    def __init__(self, options: StoreOptions, *, oss_first: bool) -> None:
        self._options = options
        self._oss_first = oss_first
        self._lock = threading.Lock()
        self._held: _Held | None = None

    def current(self) -> AccessKey | None:
        """The key to sign with; None for anonymous. May ask a metadata service (blocking).

        Raises:
            EnvironmentProblemError: none found, or their source is broken.
        """
        held = self._held
        if held is None:
            with self._lock:
                held = self._held = self._held or self._load()
        if held.chain is None:
            return held.fixed
        try:
            frozen = held.chain.get_frozen_credentials()
        except (botocore.exceptions.BotoCoreError, OSError) as exc:
            raise EnvironmentProblemError(
                f"the credentials cannot be refreshed ({type(exc).__name__})"
            ) from None
        if not frozen.access_key or not frozen.secret_key:
            raise EnvironmentProblemError("the credentials are empty")
        return AccessKey(frozen.access_key, frozen.secret_key, frozen.token)

    def refresh(self) -> None:
        """Read everything again. The old credentials stay in use if that fails.

        Raises:
            EnvironmentProblemError: as :meth:`current`.
        """
        with self._lock:
            self._held = self._load()

    def _load(self) -> _Held:
        options = self._options
        if options.anonymous:
            return _Held()
        if options.credentials_file is not None:
            return _Held(fixed=read_password_file(options.credentials_file, options.bucket))
        if options.profile is None and (found := self._from_oss_environment()) is not None:
            return _Held(chain=found)
        return _Held(chain=self._from_chain())

    def _from_oss_environment(self) -> botocore.credentials.Credentials | None:
        if not self._oss_first and _load_environment(botocore.credentials.EnvProvider()):
            return None
        return _load_environment(botocore.credentials.EnvProvider(mapping=_OSS_VARIABLES))

    def _from_chain(self) -> botocore.credentials.Credentials:
        session = make_session(self._options.profile)
        if self._oss_first:
            session.get_component("credential_provider").insert_before(
                botocore.credentials.InstanceMetadataProvider.METHOD, EcsRoleProvider()
            )
        try:
            found = session.get_credentials()
        except (botocore.exceptions.BotoCoreError, OSError) as exc:
            raise EnvironmentProblemError(
                f"the credentials cannot be loaded: {type(exc).__name__}"
            ) from None
        if found is None:
            raise EnvironmentProblemError(
                "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or "
                "OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET), name a profile or a credentials "
                "file, or mount anonymously"
            )
        return found


def _load_environment(
    provider: botocore.credentials.EnvProvider,
) -> botocore.credentials.Credentials | None:
    try:
        return provider.load()
    except botocore.exceptions.PartialCredentialsError as exc:
        raise EnvironmentProblemError(
            f"the environment lacks {exc.kwargs.get('cred_var', 'a part of the credentials')}"
        ) from None
