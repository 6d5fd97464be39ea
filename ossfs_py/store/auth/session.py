"""The boto3 session: profiles, region, and the chain that finds and renews credentials.

This and :mod:`ecs_role` are all that needs botocore; imported only if variables are not enough.
"""

import boto3.session
import botocore.credentials
import botocore.exceptions
import botocore.session

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.ecs_role import EcsRoleProvider
from ossfs_py.store.auth.environment import KeyVariables
from ossfs_py.store.auth.signing import AccessKey

# Timeout for instance and container metadata, so that a machine without roles reports missing
# credentials within the 10 s that a mount may take.
_METADATA_TIMEOUT_SECONDS = 1
_METADATA_ATTEMPTS = 2

_OF_BOTO_2 = (botocore.credentials.OriginalEC2Provider, botocore.credentials.BotoProvider)
"""They read /etc/boto.cfg, ~/.boto and AWS_CREDENTIAL_FILE, without a check of the owner."""


def make_session(
    profile: str | None, role: botocore.credentials.CredentialProvider | None = None
) -> boto3.session.Session:
    """A session of ``profile`` with short metadata timeouts; None means AWS_PROFILE or the default.

    ``role`` is asked before EC2's instance role. Sends nothing.

    Raises:
        EnvironmentProblemError: the profile or the configuration file is broken.
    """
    core = botocore.session.Session(profile=profile)
    core.set_config_variable("metadata_service_timeout", _METADATA_TIMEOUT_SECONDS)
    core.set_config_variable("metadata_service_num_attempts", _METADATA_ATTEMPTS)
    try:
        core.get_scoped_config()
    except botocore.exceptions.ProfileNotFound:
        raise EnvironmentProblemError(
            f"the profile {profile or core.profile!r} is not in the AWS configuration"
        ) from None
    except botocore.exceptions.ConfigParseError as exc:
        raise EnvironmentProblemError(
            f"the AWS configuration file {exc.kwargs.get('path', '')} cannot be parsed"
        ) from None
    chain = core.get_component("credential_provider")
    for provider in _OF_BOTO_2:
        chain.remove(provider.METHOD)
    if role is not None:
        chain.insert_before(botocore.credentials.InstanceMetadataProvider.METHOD, role)
    return boto3.session.Session(botocore_session=core)


class ChainedKey:
    """A key that botocore has found, and renews before it expires. Safe for concurrent use."""

    def __init__(self, found: botocore.credentials.Credentials, profile: str | None = None) -> None:
        self._found = found
        self.origin = _origin_of(found, profile)

    def key(self) -> AccessKey:
        """The present key; botocore may ask its source (blocking).

        Raises:
            EnvironmentProblemError: the source gives none.
        """
        try:
            frozen = self._found.get_frozen_credentials()
        except (botocore.exceptions.BotoCoreError, OSError) as exc:
            raise EnvironmentProblemError(
                f"the credentials cannot be refreshed ({type(exc).__name__})"
            ) from None
        if not frozen.access_key or not frozen.secret_key:
            raise EnvironmentProblemError("the credentials are empty")
        return AccessKey(frozen.access_key, frozen.secret_key, frozen.token)

    def may_ask(self) -> bool:
        """Whether :meth:`key` may have to ask a service or a program."""
        refreshable = botocore.credentials.RefreshableCredentials
        return isinstance(self._found, refreshable) and self._found.refresh_needed()


def expiring_key(variables: KeyVariables) -> ChainedKey:
    """The key of ``variables``, read again before it expires.

    Raises:
        EnvironmentProblemError: a variable is missing.
    """
    provider = botocore.credentials.EnvProvider(
        mapping={
            "access_key": variables.access_key,
            "secret_key": variables.secret_key,
            "token": list(variables.tokens),
            "expiry_time": variables.expiry_time,
        }
    )
    try:
        found = provider.load()
    except botocore.exceptions.PartialCredentialsError as exc:
        raise EnvironmentProblemError(
            f"the environment lacks {exc.kwargs.get('cred_var', 'a part of the credentials')}"
        ) from None
    if found is None:
        raise EnvironmentProblemError(f"the environment lacks {variables.access_key}")
    return ChainedKey(found)


def key_from_chain(profile: str | None, *, oss_first: bool) -> ChainedKey | None:
    """The key that botocore's chain finds, with ``oss_first`` the ECS instance's role before EC2's;
    None if there is none.

    Raises:
        EnvironmentProblemError: the profile or a source is broken.
    """
    session = make_session(profile, EcsRoleProvider() if oss_first else None)
    try:
        found = session.get_credentials()
    except (botocore.exceptions.BotoCoreError, OSError) as exc:
        raise EnvironmentProblemError(
            f"the credentials cannot be loaded: {type(exc).__name__}"
        ) from None
    return None if found is None else ChainedKey(found, session.profile_name)


_ORIGINS = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the shared configuration file",
    "custom-process": "the credential_process of the configuration",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity",
    "sso": "single sign-on",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
    EcsRoleProvider.METHOD: "the ECS instance's RAM role",
}
"""Names of botocore's sources for people."""


def _origin_of(found: botocore.credentials.Credentials, profile: str | None) -> str:
    words = _ORIGINS.get(found.method, found.method)
    from_files = found.method not in ("env", "container-role", "iam-role", EcsRoleProvider.METHOD)
    named = profile not in (None, "default")
    return f"{words}, profile {profile!r}" if named and from_files else words
