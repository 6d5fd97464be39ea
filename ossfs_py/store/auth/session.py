"""The boto3 session: profiles, region, and the chain that finds credentials and renews them."""

import os
from pathlib import Path

import boto3.session
import botocore.credentials
import botocore.exceptions
import botocore.session

from ossfs_py.errors import EnvironmentProblemError

# Instance and container metadata are asked with this patience, so that a machine without roles
# learns of missing credentials within the 10 s a mount may take.
_METADATA_TIMEOUT_SECONDS = 1
_METADATA_ATTEMPTS = 2

_OF_BOTO_2 = (botocore.credentials.OriginalEC2Provider, botocore.credentials.BotoProvider)
"""They read /etc/boto.cfg, ~/.boto and AWS_CREDENTIAL_FILE, whoever may have written those."""


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


def shared_files() -> tuple[Path, Path]:
    """Where profiles are read from: credentials, configuration. As botocore finds them, without
    parsing them.
    """
    core = botocore.session.Session()
    names = [core.get_config_variable(name) for name in ("credentials_file", "config_file")]
    credentials, configuration = (Path(os.path.expandvars(name)).expanduser() for name in names)
    return credentials, configuration
