"""Failures of one request, before anything has decided whether to retry."""

from typing import Literal

FaultKind = Literal["resolve", "refused", "timeout", "tls", "proxy", "broken", "not_http"]


class NoAnswerError(Exception):
    """No answer, or only a part of one: the connection broke, stalled or could not be opened.

    ``received`` counts the body bytes that arrived in the caller's buffer.
    """

    def __init__(self, message: str, kind: FaultKind = "broken", received: int = 0) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.received = received
        self.any_byte = False
        """At least one byte of an answer arrived."""
