"""Headers about objects: what is said of a new one, kept of an old one, and which one is meant."""

from collections.abc import Mapping
from urllib.parse import quote

from ossfs_py.model import CommitRequest, ObjectVersion

_KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
"""What a copy with new metadata would lose unless it is said again."""


def headers_of(request: CommitRequest, storage_class: str | None) -> dict[str, str]:
    """The headers that describe the object to be made; ``storage_class`` None is the store's."""
    headers = {f"x-amz-meta-{name}": value for name, value in request.metadata.items()}
    headers |= request.content_headers
    if request.content_type is not None:
        headers["content-type"] = request.content_type
    if storage_class is not None:
        headers["x-amz-storage-class"] = storage_class
    return headers


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Of the answer to a HEAD what goes into :attr:`CommitRequest.content_headers`."""
    return {name: headers[name] for name in _KEPT if headers.get(name)}


def copy_source(bucket: str, source: ObjectVersion) -> dict[str, str]:
    """What a copy is made of, and the version of it, unless that has no ETag."""
    where = f"{bucket}/{source.key}"
    named = {"x-amz-copy-source": quote(where, safe="/-_.~", errors="surrogateescape")}
    if source.etag:
        named["x-amz-copy-source-if-match"] = f'"{source.etag}"'
    return named
