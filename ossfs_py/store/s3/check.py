"""The request that a mount sends before anything is mounted, and its errors in plain words."""

import queue
import re
import threading

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.model import ListQuery
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.endpoint import Endpoint
from ossfs_py.store.s3.error_map import WRONG_REGION, AnswerError
from ossfs_py.store.s3.list_xml import parse_list_page
from ossfs_py.store.s3.queries import list_request
from ossfs_py.store.s3.retry import Attempt
from ossfs_py.store.s3.wire import WireClient


def check_bucket(
    wire: WireClient,
    credentials: CredentialSource,
    endpoint: Endpoint,
    prefix: str,
    timeout_seconds: float,
) -> bool:
    """List one key, once, within ``timeout_seconds``, and return whether there is one. The time
    includes resolver and metadata service.

    Raises:
        EnvironmentProblemError: one sentence that says what is wrong.
    """
    outcome: queue.SimpleQueue[Exception | bool] = queue.SimpleQueue()

    def ask() -> None:
        try:
            credentials.current()
            request = list_request(ListQuery(prefix, delimiter="", max_keys=1))
            try:
                answer = wire.once(request, Attempt())
            except AnswerError as error:
                if not error.clock_corrected:
                    raise
                answer = wire.once(request, Attempt())
            page = parse_list_page(answer.body)
        except Exception as exc:  # noqa: BLE001 - handed to the waiting thread, which raises it
            outcome.put(exc)
        else:
            # Some stores return pages without keys before the last one.
            outcome.put(bool(page.objects) or page.next_token is not None)

    # The resolver cannot be interrupted, so it is left in a thread of its own.
    threading.Thread(target=ask, name="store-check", daemon=True).start()
    try:
        found = outcome.get(timeout=timeout_seconds)
    except queue.Empty:
        raise EnvironmentProblemError(
            f"{endpoint.host_header} did not answer within {timeout_seconds:g} s"
        ) from None
    if isinstance(found, AnswerError):
        raise EnvironmentProblemError(_explain(found, endpoint, wire.answering_proxy)) from None
    if isinstance(found, NoAnswerError):
        raise EnvironmentProblemError(_explain_fault(found, endpoint)) from None
    if isinstance(found, Exception):
        raise found
    return found


def _explain(error: AnswerError, endpoint: Endpoint, proxy: str) -> str:
    bucket, host = endpoint.bucket, endpoint.host_header
    ident = f" (request id {error.request_id})" if error.request_id else ""
    wrong_region = error.code in WRONG_REGION or 300 <= error.status < 400
    if wrong_region or (error.region and error.region != endpoint.region):
        where = f"in region {error.region}" if error.region else "behind another endpoint"
        return (
            f"the bucket {bucket!r} is {where}, not {endpoint.region} at {host}: "
            f"give its region and endpoint{ident}"
        )
    expired = "the session token has expired: get a new one"
    no_bucket = f"there is no bucket {bucket!r} at {host}: are its name and the endpoint right?"
    sentences = {
        "NoSuchBucket": no_bucket,
        "InvalidBucketName": f"{bucket!r} is not a valid bucket name",
        "InvalidAccessKeyId": (
            f"{host} does not know this access key id: is it spelt right, and of this store?"
        ),
        "SignatureDoesNotMatch": (
            f"{host} does not accept the signature: the secret key is wrong, or region "
            f"{endpoint.region!r} or the addressing style is"
        ),
        "RequestTimeTooSkewed": "this machine's clock differs too much from the store's: set it",
        "ExpiredToken": expired,
        "InvalidToken": "the session token is not valid",
        "SecurityTokenExpired": expired,
        "InvalidSecurityToken": "the session token is not valid",
    }
    sentence = sentences.get(error.code)
    if proxy and not error.code and error.status in _BLOCKED:
        return f"cannot reach the store: the proxy {proxy} answered {error.status}"
    if sentence is None and not error.code:
        kind = error.headers.get("content-type", "")
        if "html" in kind or error.status == 400:
            said = f"{host} is not an S3 server: it answered {error.status} {kind}".rstrip()
            return said + _path_hint(endpoint)
    if sentence is None and error.status in (401, 403):
        sentence = f"access to the bucket {bucket!r} is denied: {_LIST_NEEDED}"
    if sentence is None and error.status == 404:
        sentence = no_bucket
    return (sentence or f"{host} answered {error}") + ident


_BLOCKED = (401, 403, 407, 451, 502, 503, 504)
"""Statuses with which proxies refuse a request, or report that they cannot forward it. A store
sends a code with them.
"""
_LIST_NEEDED = "a mount needs the permission to list it (s3:ListBucket, oss:ListObjects)"
_VIRTUAL = "buckets in host names"
_UNKNOWN_ISSUER = ("self-signed certificate", "self signed certificate", "local issuer certificate")
"""Messages of OpenSSL, of 3.0 and before, for a chain without a known root."""


def _path_hint(endpoint: Endpoint) -> str:
    """AWS and OSS want the bucket in the host name, others seldom do."""
    doubtful = endpoint.virtual and not endpoint.is_oss and "amazonaws.com" not in endpoint.host
    return f" (if it is one without {_VIRTUAL}: --addressing path)" if doubtful else ""


def _explain_fault(fault: NoAnswerError, endpoint: Endpoint) -> str:
    doubtful = bool(_path_hint(endpoint))
    if fault.kind == "not_http":
        return f"{endpoint.host_header} is not an S3 server: {fault}{_path_hint(endpoint)}"
    hint = ""
    if fault.kind == "resolve" and endpoint.virtual:
        instead = f", or the server has no {_VIRTUAL}: --addressing path" if doubtful else ""
        hint = f" (the bucket {endpoint.bucket!r} or the endpoint may be misspelt{instead})"
        if endpoint.host.endswith("amazonaws.com"):
            hint = f"{hint.removesuffix(')')}; without --endpoint the store is AWS S3)"
    elif fault.kind == "resolve" and endpoint.host in str(fault):  # not the name of a proxy
        hint = " (the endpoint may be misspelt)"
    # Neither a proxy nor a network without a route.
    if re.fullmatch(rf"{re.escape(endpoint.connect_host)}:\d+ refuses connections", str(fault)):
        hint = " (does the store run, and is this its port?)"
    if fault.kind == "tls" and "WRONG_VERSION_NUMBER" in str(fault):
        hint = " (if it speaks http only, write http:// before the endpoint)"
    if fault.kind == "tls" and any(reason in str(fault) for reason in _UNKNOWN_ISSUER):
        hint = " (if you trust it, name the certificate of its issuer: --ca-bundle FILE)"
    if fault.kind == "broken" and endpoint.scheme == "http":
        hint = " (if it speaks https, write https:// before the endpoint)"
    return f"cannot reach the store: {fault}{hint}"
