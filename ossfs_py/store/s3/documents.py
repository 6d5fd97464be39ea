"""The small XML documents of operations other than LIST: requests and answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from ossfs_py.model import NO_METADATA, MultipartUpload, Part
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.payload import BufferPayload
from ossfs_py.store.s3.error_map import parse_error
from ossfs_py.store.s3.wire import Answer, Request, patience_seconds
from ossfs_py.store.s3.xmltext import parse_document

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_INSIDE_200 = 500
"""The status of an error in the body of an answer with status 200."""


def upload_id(answer: Answer) -> str:
    """The id in the answer to CreateMultipartUpload.

    Raises:
        AnswerError: the body has an error.
        NoAnswerError: it names no upload.
    """
    found = _texts(answer, "InitiateMultipartUpload", "CreateMultipartUpload").get("UploadId")
    if not found:
        raise NoAnswerError("the answer names no upload", "not_http")
    return found


def completion(
    upload: MultipartUpload, parts: Sequence[Part], guard: Mapping[str, str] = NO_METADATA
) -> Request:
    """CompleteMultipartUpload of ``parts``, in the order of their numbers, under the condition of
    ``guard``.
    """
    listed = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;</ETag>"
        + (f"<ChecksumCRC32C>{escape(part.checksum)}</ChecksumCRC32C>" if part.checksum else "")
        + "</Part>"
        for part in parts
    )
    body = f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{listed}</CompleteMultipartUpload>'
    return Request(
        "CompleteMultipartUpload",
        "POST",
        upload.key,
        query=[("uploadId", upload.upload_id)],
        headers=guard,
        payload=BufferPayload(body.encode()),
        patience_seconds=patience_seconds(sum(part.size for part in parts)),
    )


def completed_etag(answer: Answer) -> str:
    """The ETag in the answer to CompleteMultipartUpload, with its quotes; empty if it has none.

    Raises:
        AnswerError: the body has an error: the store sends the status before it is done.
        NoAnswerError: the body is no answer to it.
    """
    return _texts(answer, "CompleteMultipartUpload").get("ETag", "")


_UNSAYABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufffe\\uffff]")
"""Characters that XML 1.0 does not have, or that parsers change."""


def can_be_said(key: str) -> bool:
    """Whether a key survives encoding and decoding in a document."""
    return _UNSAYABLE.search(key) is None


def deletion(keys: Sequence[str]) -> bytes:
    """The body of DeleteObjects, which asks for a result for each key."""
    listed = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f'<Delete xmlns="{_NAMESPACE}"><Quiet>false</Quiet>{listed}</Delete>'.encode()


def removed_keys(answer: Answer) -> set[str]:
    """The keys that the answer to DeleteObjects reports as removed.

    None for a document of another kind, which does not list keys.

    Raises:
        AnswerError: the body has an error: the store sends the status before it is done.
        NoAnswerError: the body is not complete.
    """
    if not answer.body.strip():
        return set()
    root = parse_document(answer.body, "the answer")
    if _name(root) == "Error":
        raise parse_error(_INSIDE_200, answer.headers, answer.body)
    return {
        child.text
        for deleted in root
        if _name(deleted) == "Deleted"
        for child in deleted
        if _name(child) == "Key" and child.text
    }


@dataclass(frozen=True, slots=True)
class Copied:
    """A store's report of a copy that it has made."""

    etag: str
    """With its quotes; empty if the store reports none (rclone)."""
    checksum: str | None
    """CRC-32C in base64."""


def copied(answer: Answer) -> Copied:
    """The answer to CopyObject and UploadPartCopy.

    Raises:
        AnswerError: the body has an error: the store sends the status before it is done.
        NoAnswerError: the body is no answer to a copy.
    """
    if not answer.body.strip():
        return Copied("", None)
    texts = _texts(answer, "CopyObject", "CopyPart", "UploadPartCopy")
    return Copied(texts.get("ETag", ""), texts.get("ChecksumCRC32C"))


def tags(answer: Answer) -> str:
    """The answer to GetObjectTagging, in the format of the header ``x-amz-tagging``.

    Raises:
        AnswerError, NoAnswerError: the body is no such answer.
    """
    root = _root(answer, "Tagging")
    pairs = []
    for one in root.iter():
        if _name(one) == "Tag":
            texts = {_name(child): child.text or "" for child in one}
            pairs.append((texts.get("Key", ""), texts.get("Value", "")))
    return urlencode(pairs, quote_via=quote)


def tagging(tags: str) -> bytes:
    """The body of PutObjectTagging, from the value of the header ``x-amz-tagging``."""
    listed = "".join(
        f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>"
        for key, value in parse_qsl(tags, keep_blank_values=True)
    )
    return f'<Tagging xmlns="{_NAMESPACE}"><TagSet>{listed}</TagSet></Tagging>'.encode()


_GRANTS = {
    "FULL_CONTROL": "x-amz-grant-full-control",
    "READ": "x-amz-grant-read",
    "READ_ACP": "x-amz-grant-read-acp",
    "WRITE_ACP": "x-amz-grant-write-acp",
}


def granted(answer: Answer) -> dict[str, str]:
    """The answer to GetObjectAcl, as headers of grants; none if only the owner has rights.

    Raises:
        AnswerError, NoAnswerError: the body is no such answer.
    """
    root = _root(answer, "AccessControlPolicy")
    owner = next((child for child in root if _name(child) == "Owner"), None)
    owner_id = {_name(c): c.text for c in owner}.get("ID") if owner is not None else None
    grants: dict[str, list[str]] = {}
    shared = False
    for grant in root.iter():
        if _name(grant) != "Grant":
            continue
        texts = {_name(part): part.text or "" for part in grant.iter()}
        header = _GRANTS.get(texts.get("Permission", ""))
        named = [(n, texts[t]) for t, n in (("URI", "uri"), ("ID", "id")) if texts.get(t)]
        if header is not None and named and '"' not in named[0][1]:
            name, value = named[0]
            grants.setdefault(header, []).append(f'{name}="{value}"')
            shared = shared or (name, value) != ("id", owner_id)
    return {header: ", ".join(each) for header, each in grants.items()} if shared else {}


def _texts(answer: Answer, *expected: str) -> dict[str, str]:
    """The texts below the root by tag, without namespaces."""
    return {_name(child): child.text or "" for child in _root(answer, *expected)}


def _root(answer: Answer, *expected: str) -> Element:
    root = parse_document(answer.body, "the answer")
    tag = _name(root)
    if tag == "Error":
        raise parse_error(_INSIDE_200, answer.headers, answer.body)
    if not tag.startswith(expected):  # S3 says "…Result", others do not
        raise NoAnswerError(f"the answer is none to {expected[0]}", "not_http")
    return root


def _name(element: Element) -> str:
    """An element's tag without its namespace."""
    return element.tag.rpartition("}")[2]
