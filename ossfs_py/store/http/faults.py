"""What can go wrong in one exchange, before anybody has judged whether to try again."""

from typing import Literal

FaultKind = Literal["resolve", "refused", "timeout", "tls", "proxy", "broken", "not_http"]


class NoAnswerError(Exception):
    """No answer, or not all of one: the connection broke, stalled or never came to be.

    ``received`` counts the body bytes that did arrive in the caller's buffer.
    """

    def __init__(self, message: str, kind: FaultKind = "broken", received: int = 0) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind
        self.received = received
        self.any_byte = False
        """At least one byte of an answer arrived."""
