"""The rarer operations over boto3: multipart bookkeeping and copies on the server.

The client is built at first use: it takes 0.2 s and 16 MB that a mount which only reads never
pays. botocore's own retries are off; :class:`~ossfs_py.store.retry.Retrier` is the one policy.
"""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3.session
import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.parsers
import botocore.session
from botocore import UNSIGNED

from ossfs_py.errors import EnvironmentProblemError, StoreError
from ossfs_py.store.endpoint import Endpoint
from ossfs_py.store.error_map import request_id_of
from ossfs_py.store.faults import AnswerError, NoAnswerError
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.signing import AccessKey

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_COPY_PATIENCE_SECONDS = 120.0
"""A copy or a completion of up to 5 GiB may say nothing until it is done: 5 GiB at 45 MB/s."""

EXTRA_HEADERS: Final = "OssfsExtraHeaders"
"""A parameter of our own: headers that botocore's model does not know."""


class ControlClient:
    """Makes boto3's S3 client, and turns its exceptions into ours. Safe for concurrent use."""

    def __init__(
        self,
        endpoint: Endpoint,
        options: StoreOptions,
        credentials: Callable[[], AccessKey | None],
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._credentials = credentials
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def call(self, send: "Callable[[S3Client], T]") -> T:
        """One attempt of one request.

        Raises:
            AnswerError: the store answered with an error (also one inside a 200).
            NoAnswerError: no answer, or none that can be parsed.
            StoreError: botocore will not send it (metadata that is not ASCII, for one).
        """
        client = self._ready_client()
        try:
            return send(client)
        except botocore.exceptions.ClientError as exc:
            raise _answer_error(exc.response) from None
        except (
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            botocore.parsers.ResponseParserError,
        ) as exc:
            # The texts of these name the URL; the class says what is needed.
            raise NoAnswerError(f"no answer ({type(exc).__name__})") from None
        except botocore.exceptions.BotoCoreError as exc:
            raise StoreError(f"the request cannot be made ({type(exc).__name__})") from None

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ready_client(self) -> "S3Client":
        with self._lock:
            if self._client is None:
                self._client = self._build()
            return self._client

    def _build(self) -> "S3Client":
        options = self._options
        config = botocore.config.Config(
            signature_version=UNSIGNED if options.anonymous else "s3v4",
            connect_timeout=options.connect_timeout_seconds,
            read_timeout=max(options.stall_timeout_seconds, _COPY_PATIENCE_SECONDS),
            max_pool_connections=options.concurrency,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "virtual" if self._endpoint.virtual else "path"},
            # OSS refuses aws-chunked bodies, which botocore's default checksums lead to.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        verify: bool | str | None = None
        if not options.verify_tls:
            verify = False
        elif options.ca_bundle is not None:
            verify = str(options.ca_bundle)
        core = botocore.session.Session()
        core.register_component(
            "credential_provider",
            botocore.credentials.CredentialResolver([_SharedProvider(self._credentials)]),
        )
        try:
            client = boto3.session.Session(botocore_session=core).client(
                "s3",
                region_name=self._endpoint.region,
                endpoint_url=self._endpoint.url,
                verify=verify,
                config=config,
            )
        except botocore.exceptions.BotoCoreError as exc:
            raise EnvironmentProblemError(
                f"the S3 client cannot be set up ({type(exc).__name__})"
            ) from None
        client.meta.events.register("before-parameter-build.s3", _take_extra_headers)
        client.meta.events.register("before-call.s3", _add_extra_headers)
        return client


class _SharedCredentials(botocore.credentials.Credentials):
    """Asks our source at each request, so that a rotation reaches boto3 at once."""

    def __init__(self, source: Callable[[], AccessKey | None]) -> None:
        super().__init__("", "")
        self._source = source

    def get_frozen_credentials(self) -> botocore.credentials.ReadOnlyCredentials:
        key = self._source()
        if key is None:
            raise botocore.exceptions.NoCredentialsError
        return botocore.credentials.ReadOnlyCredentials(key.access_key, key.secret_key, key.token)


class _SharedProvider(botocore.credentials.CredentialProvider):
    METHOD = "ossfs_py"

    def __init__(self, source: Callable[[], AccessKey | None]) -> None:
        super().__init__()
        self._source = source

    def load(self) -> botocore.credentials.Credentials:
        return _SharedCredentials(self._source)


def _take_extra_headers(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    context[EXTRA_HEADERS] = params.pop(EXTRA_HEADERS, {})


def _add_extra_headers(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    params["headers"].update(context.get(EXTRA_HEADERS, {}))


def _answer_error(response: Mapping[str, Any]) -> AnswerError:
    error = response.get("Error", {})
    meta = response.get("ResponseMetadata", {})
    headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
    code = str(error.get("Code", ""))
    retry_after = headers.get("retry-after", "")
    return AnswerError(
        status=int(meta.get("HTTPStatusCode", 0)),
        code="" if code.isdigit() else code,
        message=str(error.get("Message", "")),
        request_id=meta.get("RequestId") or request_id_of(headers),
        region=headers.get("x-amz-bucket-region") or str(error.get("Region", "")),
        retry_after_seconds=float(retry_after) if retry_after.isdigit() else 0.0,
        headers=headers,
    )
