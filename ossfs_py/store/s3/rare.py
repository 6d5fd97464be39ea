"""The rarer operations in boto3's words: multipart bookkeeping and copies on the server.

boto3 says and understands them; what is sent goes over the same signer, connections and limits as
everything else (:class:`~ossfs_py.store.s3.wire.WireClient`), so that no wait has a second owner.
The client is built at first use: it takes 0.2 s and 16 MB that a mount which only reads never
pays.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3.session
import botocore.config
import botocore.exceptions
import botocore.parsers
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from ossfs_py.errors import EnvironmentProblemError, StoreError
from ossfs_py.store.http.faults import AnswerError, NoAnswerError
from ossfs_py.store.http.payload import Payload
from ossfs_py.store.s3.endpoint import Endpoint
from ossfs_py.store.s3.error_map import request_id_of, retry_after_of
from ossfs_py.store.s3.retry import Attempt
from ossfs_py.store.s3.wire import Answer, Request, WireClient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_SERVER_BYTES_PER_SECOND = 45e6
"""What a store that moves bytes for an upload, a copy or a completion is granted ..."""
_LONGEST_PATIENCE_SECONDS = 120.0
""" ... up to what 5 GiB, the largest copy, take at that rate."""

_OWN_HEADERS = frozenset({"content-length", "expect", "host", "user-agent"})
"""Said by the wire client itself."""


def patience_seconds(size: int) -> float:
    """How long beyond the stall timeout the store may take to keep, copy or put together ``size``
    bytes before it answers.
    """
    return min(size / _SERVER_BYTES_PER_SECOND, _LONGEST_PATIENCE_SECONDS)


class RareOperations:
    """Makes boto3's S3 client, and turns its exceptions into ours. Safe for concurrent use."""

    def __init__(self, endpoint: Endpoint, bucket: str, wire: WireClient) -> None:
        self._endpoint = endpoint
        self._bucket = bucket
        self._wire = wire
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._calls = threading.local()
        """What the call that this thread is in wants of its request."""

    def call(
        self,
        send: "Callable[[S3Client], T]",
        state: Attempt,
        operation: str,
        patience: float = 0.0,
    ) -> T:
        """One attempt of one request. ``patience``: seconds beyond the stall timeout in which the
        store may be silent.

        Raises:
            AnswerError: the store answered with an error (also one inside a 200).
            NoAnswerError: no answer, or none that can be parsed.
            StoreError: botocore will not send it (metadata that is not ASCII, for one).
        """
        client = self._ready_client()
        self._calls.now = _Call(state, operation, patience)
        try:
            return send(client)
        except botocore.exceptions.ClientError as exc:
            raise _answer_error(exc.response) from None
        except botocore.parsers.ResponseParserError as exc:
            raise NoAnswerError(f"no answer ({type(exc).__name__})") from None
        except botocore.exceptions.BotoCoreError as exc:
            # The texts of these name the URL; the class says what is needed.
            raise StoreError(f"the request cannot be made ({type(exc).__name__})") from None
        finally:
            self._calls.now = None

    def _ready_client(self) -> "S3Client":
        with self._lock:
            if self._client is None:
                self._client = self._build()
            return self._client

    def _build(self) -> "S3Client":
        config = botocore.config.Config(
            signature_version=UNSIGNED,  # the wire client signs
            retries={"total_max_attempts": 1},  # the Retrier is the one policy
            s3={"addressing_style": "virtual" if self._endpoint.virtual else "path"},
            # OSS refuses aws-chunked bodies, which botocore's default checksums lead to.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            client = boto3.session.Session().client(
                "s3",
                region_name=self._endpoint.region,
                endpoint_url=self._endpoint.url,
                config=config,
            )
        except botocore.exceptions.BotoCoreError as exc:
            raise EnvironmentProblemError(
                f"the S3 client cannot be set up ({type(exc).__name__})"
            ) from None
        # The stubs know no handler that returns something; botocore takes it for the answer.
        client.meta.events.register("before-send.s3", self._send)  # type: ignore[arg-type]
        return client

    def _send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """Send what botocore has prepared; an answer returned here is the one it parses."""
        call: _Call = self._calls.now
        url = urlsplit(request.url)
        path = unquote(url.path, errors="surrogateescape").removeprefix("/")
        key = path if self._endpoint.virtual else path.removeprefix(f"{self._bucket}/")
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        body = request.body
        answer = self._wire.once(
            Request(
                call.operation,
                request.method,
                key,
                query=parse_qsl(url.query, keep_blank_values=True),
                headers={n: v for n, v in headers.items() if n not in _OWN_HEADERS},
                payload=Payload(body) if isinstance(body, bytes) and body else None,
                patience_seconds=call.patience,
            ),
            call.state,
        )
        names: Any = answer.headers
        return AWSResponse(request.url, answer.status, names, _Body(answer))


@dataclass(frozen=True, slots=True)
class _Call:
    state: Attempt
    operation: str
    patience: float


class _Body:
    """An answer's body as botocore reads it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def stream(self) -> Iterator[bytes]:
        yield self._answer.body


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _answer_error(response: Mapping[str, Any]) -> AnswerError:
    error = response.get("Error", {})
    meta = response.get("ResponseMetadata", {})
    headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
    code = str(error.get("Code", ""))
    return AnswerError(
        status=int(meta.get("HTTPStatusCode", 0)),
        code="" if code.isdigit() else code,
        message=str(error.get("Message", "")),
        request_id=meta.get("RequestId") or request_id_of(headers),
        region=headers.get("x-amz-bucket-region") or str(error.get("Region", "")),
        retry_after_seconds=retry_after_of(headers),
        headers=headers,
    )
