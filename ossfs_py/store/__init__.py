"""The object store: protocols in :mod:`base`, S3 and OSS in :mod:`s3`."""

from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3 import open_store

__all__ = ["StoreOptions", "open_store"]
