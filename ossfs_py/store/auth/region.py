"""The region that environment and configuration name, as botocore finds it."""

import os

from ossfs_py.store.auth.environment import has_profiles

_VARIABLE = "AWS_DEFAULT_REGION"


def configured_region(profile: str | None) -> str | None:
    """The region that environment and configuration name; None if they do not.

    Raises:
        EnvironmentProblemError: the profile or the configuration file is broken.
    """
    if not has_profiles(profile):
        return os.environ.get(_VARIABLE)
    from ossfs_py.store.auth.session import make_session  # noqa: PLC0415 (loads botocore)

    found: str | None = make_session(profile).region_name
    return found
