"""XML documents of stores as trees: their size is limited before parsing."""

import re
from xml.etree import ElementTree

from ossfs_py.store.http.faults import NoAnswerError

_MAX_TAGS = 128 * 1024
"""Start and end tags. A LIST page of 1,000 keys with all fields of S3 has 23,000. The limit also
bounds the depth.
"""
_MAX_EQUALS = 128 * 1024
"""Each attribute has one. Stores send only namespaces as attributes; keys may contain some."""
_ATTRIBUTE = re.compile(rb"=\s*[\"']")

_CONTROL = re.compile(
    rb"[\x01-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]"
    rb"|&#(x0*[01]?[0-9a-fA-F]|0*[0-9]|0*[12][0-9]|0*3[01]);"
)
"""Characters that XML 1.0 cannot contain, not even escaped, though Ceph sends them in prefixes and
continuation tokens; and some that it can.
"""
_STAND_INS = tuple(range(0xE000, 0xF900, 64))
"""First characters of blocks for private use, each with the same two bytes in UTF-8."""


def parse_document(body: bytes, what: str) -> ElementTree.Element:
    """The root of the document ``what`` ("the LIST answer").

    Documents with a type definition (entities), in UTF-16, or with more elements or attributes than
    any store needs are refused unparsed.

    Raises:
        NoAnswerError: it is not (or not all of) a document; a retry may help.
    """
    require_ordinary(body, what)
    try:
        return _parse(body)
    except (ElementTree.ParseError, LookupError, ValueError):  # also for an unknown encoding
        raise NoAnswerError(f"{what} is not whole XML", "not_http") from None


def require_ordinary(body: bytes, what: str) -> None:
    """Refuse what would take too much memory, or hide from a look at its bytes.

    Raises:
        NoAnswerError: it is no document that a store would send.
    """
    if (
        b"<!DOCTYPE" in body
        or b"\0" in body  # UTF-16 would hide the others; XML contains no zero byte
        or body.count(b"<") > _MAX_TAGS
        or (body.count(b"=") > _MAX_EQUALS and len(_ATTRIBUTE.findall(body)) > _MAX_EQUALS)
    ):
        raise NoAnswerError(f"{what} is no XML as stores send it", "not_http")


def _parse(body: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - bounded by the caller
    except ElementTree.ParseError:
        block = next((one for one in _STAND_INS if chr(one).encode()[:2] not in body), None)
        if block is None or not _CONTROL.search(body):
            raise
    root = ElementTree.fromstring(  # noqa: S314 - the same
        _CONTROL.sub(lambda found: chr(block + _code(found) % 64).encode(), body)
    )
    meant = {block + code % 64: code for code in (*range(32), 0xFFFE, 0xFFFF)}
    for element in root.iter():
        element.text = element.text and element.text.translate(meant)
    return root


def _code(found: re.Match[bytes]) -> int:
    """The code of a character that is there raw or as a reference."""
    if (reference := found[1]) is None:
        return ord(found[0].decode())
    return int(reference[1:], 16) if reference.startswith(b"x") else int(reference)
