"""Our signer against botocore's, byte by byte."""

import datetime
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.errors import StoreError
from ossfs_py.store.auth.signing import (
    EMPTY_PAYLOAD,
    UNSIGNED_PAYLOAD,
    AccessKey,
    Signer,
    encode_query,
)
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.endpoint import resolve_endpoint
from ossfs_py.store.s3.standing import StandingHeaders
from ossfs_py.store.s3.wire import Request, WireClient

if TYPE_CHECKING:
    from ossfs_py.store.http.dialing import Dialer
    from ossfs_py.store.http.pool import ConnectionPool
    from ossfs_py.store.s3.retry import Retrier

NOW = datetime.datetime(2024, 2, 29, 23, 59, 58, tzinfo=datetime.UTC)
KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "the-token")
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30)
VALUES = st.text("abcXYZ 019-._~/=", max_size=20).map(str.strip)


def botocore_headers(
    key: AccessKey, method: str, url: str, headers: Mapping[str, str]
) -> dict[str, str]:
    request = botocore.awsrequest.AWSRequest(method=method, url=url, headers=dict(headers))
    config = botocore.config.Config(s3={"payload_signing_enabled": False})
    request.context["client_config"] = config
    signer = botocore.auth.S3SigV4Auth(
        botocore.credentials.Credentials(key.access_key, key.secret_key, key.token), "s3", "eu-1"
    )
    signer.add_auth(request)
    return {name.lower(): str(value) for name, value in request.headers.items()}


@pytest.fixture
def _frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))


@given(path=TEXT, query=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=4), value=VALUES)
@pytest.mark.usefixtures("_frozen_clock")
def test_signatures_equal_those_of_botocore(
    path: str, query: list[tuple[str, str]], value: str
) -> None:
    endpoint = resolve_endpoint(StoreOptions("bucket", endpoint="https://host:8443"), None)
    encoded = encode_query(query)
    headers = {"host": endpoint.host_header, "x-amz-meta-v": value, "content-type": "a/b"}
    url = f"{endpoint.url}{endpoint.path_of(path)}{'?' if encoded else ''}{encoded}"
    ours = Signer("eu-1").sign(
        KEY,
        "PUT",
        endpoint.path_of(path),
        encoded,
        headers,
        UNSIGNED_PAYLOAD,
        NOW.timestamp(),
    )
    theirs = botocore_headers(KEY, "PUT", url, {**headers, "host": endpoint.host_header})
    assert ours["x-amz-date"] == "20240229T235958Z"
    assert ours["authorization"] == theirs["authorization"]


def test_another_secret_gives_another_signature_although_keys_are_remembered() -> None:
    signer = Signer("eu-1")

    def sign(key: AccessKey) -> str:
        host = {"host": "h"}
        return signer.sign(key, "GET", "/", "", host, UNSIGNED_PAYLOAD, 0.0)["authorization"]

    first = sign(AccessKey("id", "one"))
    assert sign(AccessKey("id", "two")) != first
    assert sign(AccessKey("id", "one")) == first


def test_a_key_does_not_show_its_secret() -> None:
    assert "wJalr" not in repr(KEY)
    assert "the-token" not in str(KEY)


CONTROL_FREE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)


def client(offset_seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> WireClient:
    """A client whose clock is the first of ``offset_seconds``."""
    monkeypatch.setattr("time.time", lambda: NOW.timestamp() + offset_seconds[0])
    options = StoreOptions("bucket", endpoint="https://host:8443", request_payer=True)
    endpoint = resolve_endpoint(options, None)
    dialer = cast(
        "Dialer", SimpleNamespace(proxy_headers={"proxy-x": "y z"}, target_prefix="http:/")
    )
    return WireClient(
        endpoint,
        dialer,
        cast("ConnectionPool", None),
        lambda: KEY,
        cast("Retrier", None),
        StandingHeaders(options),
    )


def in_full(made: WireClient, request: Request, key: AccessKey) -> bytes:
    """The head of a GET as those of other requests are made."""
    head = made.encode(request._replace(method="HEAD"), key)
    path, query = made._endpoint.path_of(request.key), encode_query(request.query)
    wrong = head.split(b"Signature=")[1].split(b"\r\n")[0]
    signed = {"host": "host:8443", "x-amz-request-payer": "requester"}
    right = made._signer.sign(key, "GET", path, query, signed, EMPTY_PAYLOAD)["authorization"]
    head = head.replace(wrong, right.split("Signature=")[1].encode())
    return b"GET" + head.removeprefix(b"HEAD")


@given(
    key=CONTROL_FREE,
    query=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=2),
    own=st.dictionaries(st.sampled_from(["range", "if-match", "if-none-match"]), CONTROL_FREE),
    seconds=st.lists(st.floats(0, 3), min_size=1, max_size=4),
)
def test_a_get_has_the_head_that_it_would_have_alone(
    key: str, query: list[tuple[str, str]], own: dict[str, str], seconds: list[float]
) -> None:
    """Whatever was remembered from the one before: another second, another key."""
    clock = [0.0]
    with pytest.MonkeyPatch.context() as patched:
        made = client(clock, patched)
        for number, second in enumerate(seconds):
            clock[0] = second
            secret = replace(KEY, secret_key=str(number % 2), token=None if number % 2 else "t")
            request = Request("GetObject", "GET", key, query, own)
            for _ in range(2):
                assert made.encode(request, secret) == in_full(made, request, secret)


@pytest.mark.parametrize("name", ["range", "if-match"])
def test_a_control_character_in_a_header_of_a_get_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client([0.0], monkeypatch)
    with pytest.raises(StoreError, match=f"header {name} holds control"):
        made.encode(Request("GetObject", "GET", "k", (), {name: "a\r\nb: c"}), KEY)


def test_a_corrected_clock_counts_for_the_next_get(monkeypatch: pytest.MonkeyPatch) -> None:
    made = client([0.0], monkeypatch)
    request = Request("GetObject", "GET", "k")
    made.encode(request, KEY)
    assert made._signer.correct_clock(NOW.timestamp() + 3600)
    assert b"x-amz-date: 20240301T005958Z" in made.encode(request, KEY)
