"""The boto3 session: profiles, region, and the chain that finds credentials and renews them."""

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
    if role is not None:
        chain = core.get_component("credential_provider")
        chain.insert_before(botocore.credentials.InstanceMetadataProvider.METHOD, role)
    return boto3.session.Session(botocore_session=core)


def shared_files() -> list[Path]:
    """Where profiles are read from. As botocore finds them, without parsing them."""
    core = botocore.session.Session()
    names = [core.get_config_variable(name) for name in ("credentials_file", "config_file")]
    return [Path(name).expanduser() for name in names if name]
