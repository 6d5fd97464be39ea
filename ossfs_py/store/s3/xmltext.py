"""Documents of stores as trees: bounded before anything is built of them."""

import re
from xml.etree import ElementTree

from ossfs_py.store.http.faults import NoAnswerError

_MAX_TAGS = 128 * 1024
"""Start and end tags. A LIST page of 1,000 keys with all that S3 tells of each has 23,000. It
bounds the depth as well."""
_MAX_EQUALS = 128 * 1024
"""Each attribute has one. Stores send none but namespaces; keys may hold some."""
_ATTRIBUTE = re.compile(rb"=\s*[\"']")


def parse_document(body: bytes, what: str) -> ElementTree.Element:
    """The root of the document that ``what`` ("the LIST answer") is.

    Documents with a type definition (entities), in UTF-16, or with more elements or attributes
    than any store has a use for are refused unparsed.

    Raises:
        NoAnswerError: it is not (or not all of) a document, which a retry may mend.
    """
    if (
        b"<!DOCTYPE" in body
        or b"\0" in body  # UTF-16 would hide the others; in XML there is none
        or body.count(b"<") > _MAX_TAGS
        or (body.count(b"=") > _MAX_EQUALS and len(_ATTRIBUTE.findall(body)) > _MAX_EQUALS)
    ):
        raise NoAnswerError(f"{what} is no XML as stores send it", "not_http")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - bounded above
    except (ElementTree.ParseError, LookupError, ValueError):  # also: an unknown encoding
        raise NoAnswerError(f"{what} is not whole XML", "not_http") from None
