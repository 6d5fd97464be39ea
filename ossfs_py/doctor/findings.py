"""The result of a check."""

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How much a finding matters."""

    GOOD = "ok"
    WARNING = "warning"
    """It works, slowly or not for everybody."""
    FAILED = "failed"
    """Mounts fail, or programs will see errors."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check, in a sentence; ``fix`` says what to do about it."""

    check: str
    status: Status
    told: str
    fix: str = ""
    verdict: str = ""
    """State of a feature of the store: works, ignored, refused or unknown."""


def good(check: str, told: str) -> Finding:
    """All is well."""
    return Finding(check, Status.GOOD, told)


def warning(check: str, told: str, fix: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(check, Status.WARNING, told, fix)


def failed(check: str, told: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Status.FAILED, told, fix)


def skipped(check: str, told: str) -> Finding:
    """The check did not run, and why."""
    return Finding(check, Status.SKIPPED, told)
