"""Our signer against botocore's, byte by byte."""

import datetime
from collections.abc import Mapping

import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.store.auth.signing import UNSIGNED_PAYLOAD, AccessKey, Signer, encode_query
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.endpoint import resolve_endpoint

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
