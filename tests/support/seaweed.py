"""The embedded S3 server as the tests use it."""

from ossfs_py.cli.embedded import REGION, Identity, SeaweedServer

__all__ = ["OUTSIDER", "OUTSIDER_BUCKET", "REGION", "Identity", "SeaweedServer"]

OUTSIDER = "outsider"
"""Name of the identity that may use one bucket only."""
OUTSIDER_BUCKET = "outsiders-own"
