"""The page that shows :mod:`status`, and the headers that keep it to itself."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

STATUS_PATH = "/status.json"
"""The paths that the page requests, beside itself."""

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)

COMMON_HEADERS = (
    "Cache-Control: no-store\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "X-Content-Type-Options: nosniff\r\n"
)
"""Headers of page and data: both are only for the one who asked, and only now."""


@cache
def page() -> bytes:
    """The document: style and script are in it, everything else comes from ``status.json``."""
    return files(__package__).joinpath("status.html").read_bytes()


@cache
def page_headers() -> str:
    """Lines that allow the page its own style, its own script and its own figures only."""
    allowed = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in _INLINE.findall(page().decode())
    }
    policy = (
        f"default-src 'none'; style-src {allowed['style']}; script-src {allowed['script']};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return f"Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\n{COMMON_HEADERS}"
