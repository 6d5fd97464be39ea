"""The one table from a store's answers to the exceptions of this package, and what to retry."""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ossfs_py.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    ConditionFailedError,
    EnvironmentProblemError,
    IntegrityError,
    MetadataTooLargeError,
    ObjectMissingError,
    ObjectTooLargeError,
    QuotaExceededError,
    RetainedError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
)
from ossfs_py.store.http.faults import NoAnswerError


@dataclass(slots=True)
class AnswerError(Exception):
    """The store answered with an error."""

    status: int
    code: str = ""
    message: str = ""
    request_id: str = ""
    region: str = ""
    """The bucket's region, if the answer has it."""
    retry_after_seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    clock_corrected: bool = False
    """The request was signed with a wrong time; the next one will not be."""

    def __str__(self) -> str:
        said = " ".join(part for part in (str(self.status), self.code, self.message) if part)
        if not 300 <= self.status < 400:
            return said
        # Following it would send a signed request to any host that the answer names.
        place = self.region and f" in region {self.region}"
        host = urlsplit(self.headers.get("location", "")).hostname
        return f"{said} (redirected{place}{f' to {host}' if host else ''}, which is not followed)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of an error."""

    cause: type[StoreError]
    retry: bool = False


_MISSING = Verdict(ObjectMissingError)
_NO_BUCKET = Verdict(BucketMissingError)
_DENIED = Verdict(AccessDeniedError)
_ARCHIVED = Verdict(ArchivedError)
_RETAINED = Verdict(RetainedError)
_CONDITION = Verdict(ConditionFailedError)
_QUOTA = Verdict(QuotaExceededError)
_TOO_LARGE = Verdict(ObjectTooLargeError)
_UNSUPPORTED = Verdict(UnsupportedByStoreError)
_DAMAGED = Verdict(IntegrityError, retry=True)
_BUSY = Verdict(StoreUnavailableError, retry=True)
_OTHER = Verdict(StoreError)

# Codes of S3, OSS, SeaweedFS, MinIO and Ceph. A code says more than a status, so it comes first.
CODES: dict[str, Verdict] = {
    "NoSuchKey": _MISSING,
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchUpload": _MISSING,
    "NoSuchVersion": _MISSING,
    "AccessDenied": _DENIED,
    "AccountProblem": _DENIED,
    "AllAccessDisabled": _DENIED,
    "UserDisable": _DENIED,
    "InvalidAccessKeyId": _DENIED,
    "SignatureDoesNotMatch": _DENIED,
    "RequestTimeTooSkewed": _DENIED,
    "ExpiredToken": _DENIED,
    "InvalidToken": _DENIED,
    "TokenRefreshRequired": _DENIED,
    "SecurityTokenExpired": _DENIED,
    "InvalidSecurityToken": _DENIED,
    "InvalidObjectState": _ARCHIVED,
    "FileImmutable": _RETAINED,
    "RetentionPolicyNotMet": _RETAINED,
    "PreconditionFailed": _CONDITION,
    "FileAlreadyExists": _CONDITION,
    "MetadataTooLarge": Verdict(MetadataTooLargeError),
    "QuotaExceeded": _QUOTA,
    "InsufficientCapacity": _QUOTA,
    "XMinioStorageFull": _QUOTA,
    "EntityTooLarge": _TOO_LARGE,
    "NotImplemented": _UNSUPPORTED,
    "MethodNotAllowed": _UNSUPPORTED,
    "BadDigest": _DAMAGED,
    "InvalidDigest": _DAMAGED,
    "XAmzContentChecksumMismatch": _DAMAGED,
    # A 409 of S3 for two conditional writes at the same time: AWS asks for a retry.
    "ConditionalRequestConflict": _BUSY,
    "OperationAborted": _BUSY,
    "RequestTimeout": _BUSY,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    "DownloadTrafficRateLimitExceeded": _BUSY,
    "UploadTrafficRateLimitExceeded": _BUSY,
    "QpsLimitExceeded": _BUSY,
}

STATUSES: dict[int, Verdict] = {
    401: _DENIED,
    403: _DENIED,
    404: _MISSING,
    405: _UNSUPPORTED,
    408: _BUSY,
    410: _MISSING,
    412: _CONDITION,
    413: _TOO_LARGE,
    429: _BUSY,
    501: _UNSUPPORTED,
    507: _QUOTA,
}

MAY_PASS = (AccessDeniedError, BucketMissingError, StoreUnavailableError)
"""Errors that say nothing about a store's abilities: they may pass later."""

_REFUSED_KEY = frozenset(
    {
        "ExpiredToken",
        "TokenRefreshRequired",
        "SecurityTokenExpired",
        "InvalidToken",
        "InvalidSecurityToken",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
    }
)
"""A mount begins with an accepted key, so one of these later means that keys are rotated."""

CLOCK_SKEW = "RequestTimeTooSkewed"
"""Our clock and the store's differ by more than the 15 minutes that SigV4 allows."""

_SLOW_DOWN = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "DownloadTrafficRateLimitExceeded",
        "UploadTrafficRateLimitExceeded",
        "QpsLimitExceeded",
    }
)

WRONG_REGION = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "SecondLevelDomainForbidden",
    }
)


Failure = AnswerError | NoAnswerError | EnvironmentProblemError
"""The failures of an attempt. The last one means that there are no credentials."""


def judge(error: Failure) -> Verdict:
    """The meaning of ``error``; a broken connection is always retried.

    So are missing credentials: the mount began with some, so their source has failed.
    """
    if isinstance(error, NoAnswerError):
        return _BUSY
    if isinstance(error, EnvironmentProblemError):
        return Verdict(AccessDeniedError, retry=True)
    verdict = CODES.get(error.code) or STATUSES.get(error.status)
    if verdict is None:
        verdict = _BUSY if error.status >= 500 else _OTHER
    if verdict in (_DENIED, _OTHER) and _LOCKED.search(error.message):
        return _RETAINED
    return verdict


_LOCKED = re.compile(r"object lock|\bWORM\b|legal hold|retention (period|policy)", re.IGNORECASE)
"""AWS, Ceph and MinIO have no separate code for it; OSS and Google Cloud do."""


_ONE_SIZE = re.compile(r"same (length|size)|equal", re.IGNORECASE)


def wants_equal_parts(error: AnswerError) -> bool:
    """Whether an upload is refused because its parts differ in size (Cloudflare R2): other stores
    answer InvalidPart for missing parts.
    """
    return error.code == "InvalidPart" and _ONE_SIZE.search(error.message) is not None


def asks_to_slow_down(error: AnswerError) -> bool:
    """Whether the store works, but wants fewer requests."""
    return error.code in _SLOW_DOWN or error.status in (429, 503)


_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
_REGION = re.compile(rb"<Region>([^<]*)</Region>")
_REQUEST_ID = re.compile(rb"<RequestId>([^<]*)</RequestId>")
_MAX_MESSAGE_CHARS = 300
_METADATA_LIMIT = re.compile(r"(Metadata (name|value)|Too many metadata|Total metadata)")
"""Beginnings of Swift's messages about limits of metadata; its S3 front end has no codes for them.
"""


def refuses_key(error: AnswerError) -> bool:
    """Whether the store does not accept the key itself any more."""
    return error.code in _REFUSED_KEY


def may_refuse_key(error: AnswerError) -> bool:
    """Whether the key may be the cause: the answer to a HEAD has no body with the code."""
    return error.status in (400, 401, 403) and not error.code


def request_id_of(headers: Mapping[str, str]) -> str:
    """The store's own id of an answer."""
    return headers.get("x-amz-request-id") or headers.get("x-oss-request-id") or ""


_RETRY_AFTER_DIGITS = 9
"""Some thirty years; callers respect much less."""


def retry_after_of(headers: Mapping[str, str]) -> float:
    """The pause that the store asks for, in seconds: Retry-After in either form; 0 without."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:_RETRY_AFTER_DIGITS])
    until, now = _http_seconds(value), store_time_of(headers)
    # Both times are by the store's clock: ours may be wrong.
    return max(0.0, until - now) if until is not None and now is not None else 0.0


def store_time_of(headers: Mapping[str, str]) -> float | None:
    """The store's clock when it answered, in seconds since the epoch."""
    return _http_seconds(headers.get("date", ""))


def _http_seconds(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):  # dates that make no sense
        return None


def parse_error(status: int, headers: dict[str, str], body: bytes) -> AnswerError:
    """Parse an error answer. The body need not be XML: HEAD has none, proxies send HTML."""
    code, message = _first(_CODE, body), _first(_MESSAGE, body)[:_MAX_MESSAGE_CHARS]
    if code == "InvalidRequest" and _METADATA_LIMIT.match(message):
        code = "MetadataTooLarge"
    return AnswerError(
        status=status,
        code=code,
        message=message,
        request_id=request_id_of(headers) or _first(_REQUEST_ID, body),
        region=headers.get("x-amz-bucket-region") or _first(_REGION, body),
        retry_after_seconds=retry_after_of(headers),
        headers=headers,
    )


def _first(pattern: re.Pattern[bytes], body: bytes) -> str:
    match = pattern.search(body)
    return match.group(1).decode("utf-8", "replace").strip() if match else ""
