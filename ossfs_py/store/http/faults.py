"""What can go wrong in one attempt, before anybody has judged whether to try again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class AnswerError(Exception):
    """The store answered, and the answer is an error."""

    status: int
    code: str = ""
    message: str = ""
    request_id: str = ""
    region: str = ""
    """The region the bucket is in, where the answer tells."""
    retry_after_seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    clock_corrected: bool = False
    """The request was signed with a wrong time, and the next one will not be."""

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.status), self.code, self.message) if part)
