"""What the proxy can do wrong to one request, and how an answer is changed on its way."""

import html
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

Headers = list[tuple[str, str]]
_ETAG = re.compile(rb"<ETag>(.*?)</ETag>")


@dataclass(slots=True)
class Fault:
    """What happens to matching requests, instead of or on top of the server's answer.

    Usually one of the actions is set. ``skip`` requests pass first, then ``times`` are hit (None:
    all of them).
    """

    operation: str = "*"
    key: str | None = None
    skip: int = 0
    times: int | None = 1

    # The server never hears of the request.
    status: int | None = None
    """Answer with this status, ``code`` and headers."""
    code: str = "SlowDown"
    retry_after: str | None = None
    date: str | None = None
    """The Date header that goes with ``status``."""
    reset_before: bool = False
    """Reset the connection before a byte of the answer."""
    refuse_seconds: float | None = None
    """Reset every connection and refuse new ones for this long."""
    stall_head: int | None = None
    """Send this many bytes of an answer's head, then nothing."""
    trickle_head: bool = False
    """Send a head that never ends, a byte every now and then."""
    garbage: bool = False
    """Answer with something that is not HTTP."""

    # The request that the server gets is changed.
    delay_seconds: float | None = None
    """Wait before handing the request on."""
    held_until: threading.Event | None = None
    """Hand the request on when this is set, at the latest when the proxy ends."""
    ignore_range: bool = False
    """Ask the server for the whole object."""
    cut_request: int | None = None
    """Hand on this many bytes of the body, then reset both connections."""
    corrupt_request: bool = False
    """Flip a bit in the middle of the body."""

    # The answer is changed.
    lose_answer: bool = False
    """Let the server do it, then reset the connection instead of answering."""
    reset_after: int | None = None
    """Reset the connection after this many body bytes."""
    short_after: int | None = None
    """Close in good order after this many body bytes, fewer than promised."""
    stall_after: int | None = None
    """Send this many body bytes, then nothing until the client gives up."""
    trickle_after: int | None = None
    """Send this many body bytes, then one every now and then."""
    truncate_after: int | None = None
    """Cut the body to this many bytes and say so in Content-Length."""
    body: bytes | None = None
    """Replace the body, its length told truly."""
    corrupt_answer: bool = False
    """Flip a bit in the middle of the body."""
    etag: str | None = None
    """Replace the answer's ETag."""
    respelled: Callable[[str], str] | None = None
    """Write every ETag, in headers and documents, as this says; it is given one without quotes."""
    shift_range: int = 0
    """Move the start that Content-Range names by this many bytes."""
    hits: int = field(default=0, init=False)

    def copy(self, **changes: object) -> Self:
        """The same fault, not hit yet."""
        return replace(self, **changes)

    @property
    def cut(self) -> int | None:
        """After how many body bytes the answer stops short of its promised length."""
        given = (self.reset_after, self.short_after, self.stall_after, self.trickle_after)
        return min((cut for cut in given if cut is not None), default=None)

    @property
    def rewrites_body(self) -> bool:
        """Whether the whole body has to be in hand."""
        changed = (self.truncate_after, self.body, self.respelled)
        return self.corrupt_answer or any(each is not None for each in changed)

    def rewrite(self, body: bytes) -> bytes:
        """The body as this fault wants it."""
        if self.body is not None:
            body = self.body
        if self.respelled is not None and body.startswith(b"<"):
            body = _ETAG.sub(self._respelled_element, body)
        if self.corrupt_answer:
            body = with_a_bit_flipped(body)
        return body[: self.truncate_after]

    def rewrite_headers(self, headers: Headers) -> Headers:
        """The answer's headers as this fault wants them."""
        return [(name, self._header(name.lower(), value)) for name, value in headers]

    def _header(self, name: str, value: str) -> str:
        if name == "etag" and self.etag is not None:
            return f'"{self.etag}"'
        if name == "etag" and self.respelled is not None:
            return self.respelled(value.strip('"'))
        if name == "content-range" and self.shift_range:
            start, _, rest = value.removeprefix("bytes ").partition("-")
            return f"bytes {int(start) + self.shift_range}-{rest}"
        return value

    def _respelled_element(self, found: re.Match[bytes]) -> bytes:
        assert self.respelled is not None
        etag = html.unescape(found[1].decode()).strip('"')
        return f"<ETag>{html.escape(self.respelled(etag))}</ETag>".encode()


def cut_of(faults: Sequence[Fault]) -> int | None:
    """The earliest end that any of the faults puts to a body."""
    return min((fault.cut for fault in faults if fault.cut is not None), default=None)


def with_a_bit_flipped(body: bytes) -> bytes:
    """``body`` with one wrong bit in its middle; empty stays empty."""
    changed = bytearray(body)
    if changed:
        changed[len(changed) // 2] ^= 0x10
    return bytes(changed)
