"""Keys of a process that has them in its environment, as botocore reads them.

Most mounts have their keys in variables and no AWS files. They need not load botocore, which takes
0.25 CPU-s, half as much as the rest of a start.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.signing import AccessKey

_FILES = (
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
)
_PROFILE_VARIABLES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")


@dataclass(frozen=True, slots=True)
class KeyVariables:
    """Names of the variables that hold a key. The first one of ``tokens`` that is set counts."""

    access_key: str
    secret_key: str
    tokens: tuple[str, ...]
    expiry_time: str

    def are_set(self, environ: Mapping[str, str]) -> bool:
        """Whether they decide which key is used."""
        return bool(environ.get(self.access_key))

    def expire(self, environ: Mapping[str, str]) -> bool:
        """Whether their credentials expire, so that they have to be read again before that."""
        return bool(environ.get(self.expiry_time))

    def key(self, environ: Mapping[str, str]) -> AccessKey:
        """The key in the variables.

        Raises:
            EnvironmentProblemError: the secret is missing.
        """
        secret = environ.get(self.secret_key)
        if not secret:
            raise EnvironmentProblemError(f"the environment lacks {self.secret_key}")
        tokens = (environ.get(name) for name in self.tokens)
        token = next((token for token in tokens if token), None)
        return AccessKey(environ[self.access_key], secret, token)


AWS_VARIABLES = KeyVariables(
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"),
    "AWS_CREDENTIAL_EXPIRATION",
)
OSS_VARIABLES = KeyVariables(
    "OSS_ACCESS_KEY_ID",
    "OSS_ACCESS_KEY_SECRET",
    ("OSS_SESSION_TOKEN",),
    "OSS_CREDENTIAL_EXPIRATION",
)


def shared_files() -> tuple[Path, Path]:
    """Paths of the files with profiles: credentials, configuration. As botocore finds them."""
    credentials, configuration = (
        Path(os.path.expandvars(os.environ.get(variable, usual))).expanduser()
        for variable, usual in _FILES
    )
    return credentials, configuration


def has_profiles(profile: str | None) -> bool:
    """Whether other sources than variables matter: a profile is named, or there are files."""
    return (
        profile is not None
        or any(name in os.environ for name in _PROFILE_VARIABLES)
        or any(path.is_file() for path in shared_files())
    )
