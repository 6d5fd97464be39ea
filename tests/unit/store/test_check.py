"""One plain sentence for each mistake that a mount can start with."""

import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from tests.support.scripted_server import (
    ScriptedServer,
    Step,
    error,
    hold,
    raw,
    read_only,
    reply,
    store_for,
)

EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
ONE_KEY = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>some/prefix/a</Key>"
    b"<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    b"<Size>1</Size></Contents></ListBucketResult>"
)
GOES_ON = (
    b"<ListBucketResult><IsTruncated>true</IsTruncated>"
    b"<NextContinuationToken>on</NextContinuationToken></ListBucketResult>"
)


def sentence(url: str, timeout_seconds: float = 5.0, **options: object) -> str:
    store = store_for(url, **options)
    try:
        with pytest.raises(EnvironmentProblemError) as caught:
            store.check("some/prefix/", timeout_seconds)
    finally:
        store.close()
    return str(caught.value)


def test_a_bucket_that_answers_is_fine_after_one_small_list() -> None:
    with ScriptedServer([[[reply(200, EMPTY)]]]) as server:
        store = store_for(server.url)
        assert not store.check("some/prefix/", 5.0)
        store.close()
    (seen,) = server.requests
    assert "prefix=some%2Fprefix%2F" in seen.target
    assert "max-keys=1" in seen.target


@pytest.mark.parametrize("page", [ONE_KEY, GOES_ON])
def test_it_says_whether_there_may_be_a_key(page: bytes) -> None:
    with ScriptedServer([[[reply(200, page)]]]) as server:
        store = store_for(server.url)
        assert store.check("some/prefix/", 5.0)
        store.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(404, "NoSuchBucket"), "are its name and the endpoint right?"),
        (reply(404), "there is no bucket 'bucket' at 127.0.0.1"),
        (error(403, "AccessDenied"), "is denied: a mount needs the permission to list it"),
        (error(403, "InvalidAccessKeyId"), "does not know this access key id: is it spelt right"),
        (error(403, "SignatureDoesNotMatch"), "the secret key is wrong"),
        (error(403, "RequestTimeTooSkewed"), "this machine's clock differs too much"),
        (error(400, "ExpiredToken"), "the session token has expired: get a new one"),
        (
            error(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
            "the bucket 'bucket' is in region eu-west-1, not us-east-1",
        ),
        (
            error(400, "AuthorizationHeaderMalformed", extra="<Region>eu-west-1</Region>"),
            "the bucket 'bucket' is in region eu-west-1, not us-east-1",
        ),
        (error(400, "InvalidBucketName"), "'bucket' is not a valid bucket name"),
        (reply(200, b"<html>Hi</html>", {"content-type": "text/html"}), "is not an S3 server"),
        (
            reply(404, b"<html>Hi</html>", {"content-type": "text/html"}),
            "is not an S3 server: it answered 404 text/html",
        ),
        (raw(b"220 smtp ready\r\n\r\n"), "is not an S3 server"),
        (error(503, "SlowDown"), "answered 503 SlowDown"),
        (hold, "no byte moved"),
    ],
)
def test_an_answer_becomes_a_sentence(answer: Step, expected: str) -> None:
    with ScriptedServer([[[answer]]]) as server:
        assert expected in sentence(server.url)
    assert len(server.requests) == 1


def test_an_endpoint_that_says_nothing_in_time_is_given_up() -> None:
    with ScriptedServer([[[read_only, hold]]]) as server:
        told = sentence(server.url, 0.2, stall_timeout_seconds=30.0)
    assert told.endswith("did not answer within 0.2 s")


def test_a_port_nobody_listens_on_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    told = sentence(f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} refuses connections (does the store run, and is this" in told


def test_a_name_that_does_not_exist_is_told() -> None:
    told = sentence("https://store.invalid", addressing="virtual")
    assert "the name bucket.store.invalid cannot be resolved" in told
    assert "may be misspelt, or the server has no buckets in host names" in told
    assert "--addressing path" in told


def test_a_name_without_the_bucket_may_be_misspelt_too() -> None:
    told = sentence("https://store.invalid", addressing="path")
    assert told.endswith("the name store.invalid cannot be resolved (the endpoint may be misspelt)")


def test_who_named_no_endpoint_is_told_where_the_bucket_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told = sentence("https://s3.us-east-1.amazonaws.com", addressing="virtual")
    assert "the name bucket.s3.us-east-1.amazonaws.com cannot be resolved" in told
    assert told.endswith("may be misspelt; without --endpoint the store is AWS S3)")


def test_a_server_that_takes_the_bucket_from_the_path_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    buckets = b"<ListAllMyBucketsResult/>"
    with ScriptedServer([[[reply(200, buckets)]]]) as server:
        monkeypatch.setenv("http_proxy", server.url)  # which resolves every name
        told = sentence("http://store.invalid", addressing="virtual")
    assert told.startswith("bucket.store.invalid is not an S3 server")
    assert "--addressing path" in told


def test_a_certificate_of_an_unknown_issuer_is_told_with_the_option_for_it(tmp_path: Path) -> None:
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
        f"-keyout {tmp_path}/key.pem -out {tmp_path}/cert.pem -subj /CN=127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with ScriptedServer([[[reply(200, EMPTY)]]], tls=context) as server:
        told = sentence(server.url, connect_timeout_seconds=5.0, stall_timeout_seconds=5.0)
    assert "self-signed certificate" in told
    assert "--ca-bundle FILE" in told


def test_https_to_a_plain_server_is_told() -> None:
    with ScriptedServer([[[reply(400)]]]) as server:
        told = sentence(server.url.replace("http:", "https:"), connect_timeout_seconds=0.2)
    assert "TLS with 127.0.0.1" in told


def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with ScriptedServer([]) as server:
        assert "no credentials found" in sentence(server.url, anonymous=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    answer = reply(200, EMPTY) if scheme == "http" else raw(b"HTTP/1.1 407 No\r\n\r\n")
    with ScriptedServer([[[answer]]]) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:pass%21@127.0.0.1:{proxy.port}")
        if scheme == "http":
            store = store_for("http://store.invalid")
            store.check("", 5.0)
            store.close()
        else:
            told = sentence("https://store.invalid")
            assert f"the proxy 127.0.0.1:{proxy.port} answered 407 to CONNECT" in told
    (seen,) = proxy.requests
    wanted = "http://store.invalid/bucket?" if scheme == "http" else "store.invalid:443"
    assert seen.target.startswith(wanted)
    assert seen.headers["proxy-authorization"] == "Basic bWU6cGFzcyE="


def test_no_proxy_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ScriptedServer([[[reply(200, EMPTY)]]]) as server:
        store = store_for(server.url)
        store.check("", 5.0)
        store.close()


def test_a_proxy_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(EnvironmentProblemError, match="socks5"):
        store_for("http://store.invalid")


def test_a_broken_ca_bundle_is_told(tmp_path: object) -> None:
    with pytest.raises(EnvironmentProblemError, match="the CA bundle"):
        store_for("https://store.invalid", ca_bundle=tmp_path)
