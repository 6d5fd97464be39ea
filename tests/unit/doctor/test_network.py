"""Each fault between this machine and the store, staged, is told by its own check."""

import socket
import ssl
import subprocess
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from ossfs_py.doctor.findings import Finding, Status
from ossfs_py.doctor.network import Way
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.endpoint import resolve_endpoint
from tests.support.scripted_server import ScriptedServer, hold, raw, reply

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine that nobody has signed; key and certificate in one file."""
    directory = tmp_path_factory.mktemp("tls")
    both = directory / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text((directory / "key.pem").read_text() + (directory / "cert.pem").read_text())
    return both


def serving_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def way(url: str, **options: object) -> Way:
    endpoint = resolve_endpoint(StoreOptions("bucket", endpoint=url, addressing="path"), None)
    return Way(endpoint, **options)  # type: ignore[arg-type]


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_way_without_faults_is_well() -> None:
    answer = reply(403, b"", {"date": formatdate(usegmt=True)})
    with ScriptedServer([[], [[answer]]]) as server:
        found = by_name(list(way(server.url).check()))
    assert [found[name].status for name in ("name", "port", "clock")] == [Status.GOOD] * 3
    assert found["certificate"].status is Status.SKIPPED


def test_a_name_nobody_knows_is_told_and_the_rest_is_skipped() -> None:
    found = by_name(list(way("https://store.invalid").check()))
    assert found["name"].status is Status.FAILED
    assert "store.invalid cannot be resolved" in found["name"].told
    assert {found[name].status for name in ("port", "certificate", "clock")} == {Status.SKIPPED}


def test_a_port_nobody_listens_on_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = by_name(list(way(f"http://127.0.0.1:{port}").check()))
    assert found["port"].status is Status.FAILED
    assert "cannot be reached: connection refused" in found["port"].told
    assert found["clock"].status is Status.SKIPPED


def test_a_certificate_that_nobody_trusts_is_told(certificate: Path) -> None:
    with ScriptedServer([[]], serving_tls(certificate)) as server:
        finding = way(server.url).certificate()
    assert finding.status is Status.FAILED
    assert finding.told.startswith("not trusted: self-signed certificate")
    assert "--ca-bundle" in finding.fix


def test_a_certificate_that_expires_soon_is_told(certificate: Path) -> None:
    with ScriptedServer([[[reply(200)]]], serving_tls(certificate)) as server:
        finding = way(server.url, ca_bundle=certificate).certificate()
    assert finding.status is Status.WARNING
    assert finding.told.endswith(" 5 days left")


def test_a_certificate_that_is_not_looked_at_is_told(certificate: Path) -> None:
    with ScriptedServer([[[reply(200)]]], serving_tls(certificate)) as server:
        finding = way(server.url, verify_tls=False).certificate()
    assert finding.status is Status.WARNING
    assert "--no-verify-tls" in finding.told


def test_a_server_without_tls_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ossfs_py.doctor.network._PATIENCE_SECONDS", 0.2)
    with ScriptedServer([[[raw(b"HTTP/1.1 400 Bad\r\n\r\n")]]]) as server:
        finding = way(server.url.replace("http:", "https:")).certificate()
    assert finding.status is Status.FAILED
    assert "the TLS handshake failed" in finding.told
    assert "http://" in finding.fix


@pytest.mark.parametrize(
    ("off_seconds", "status", "told"),
    [
        (0.0, Status.GOOD, "within a second"),
        (-30.0, Status.GOOD, "30 s behind the store's"),
        (300.0, Status.WARNING, "300 s ahead of the store's"),
        (-HOUR, Status.FAILED, "3600 s behind the store's: signatures of most programs"),
    ],
)
def test_a_clock_that_is_off_is_told(off_seconds: float, status: Status, told: str) -> None:
    now = 1_700_000_000.0
    with ScriptedServer([[[reply(200, b"", {"date": formatdate(now, usegmt=True)})]]]) as server:
        finding = way(server.url, clock=lambda: now + off_seconds).clock()
    assert finding.status is status
    assert finding.told.startswith(told)


def test_something_that_is_no_http_server_is_told() -> None:
    with ScriptedServer([[[raw(b"220 smtp ready\r\n\r\n")]]]) as server:
        finding = way(server.url).clock()
    assert finding.status is Status.FAILED
    assert "no answer over HTTP" in finding.told


def test_a_store_that_does_not_tell_its_time_is_no_fault() -> None:
    with ScriptedServer([[[reply(200)]]]) as server:
        assert way(server.url).clock().status is Status.SKIPPED


def test_a_proxy_is_looked_at_instead_of_a_store_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = reply(403, b"", {"date": formatdate(usegmt=True)})
    with ScriptedServer([[], [[answer]]]) as server:
        monkeypatch.setenv("http_proxy", server.url)
        found = way("http://store.invalid")
        assert found.name().status is Status.GOOD
        assert "the proxy 127.0.0.1" in found.port().told
        assert found.clock().status is Status.GOOD
    assert server.requests[0].target == "http://store.invalid/"


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ossfs_py.doctor.network._PATIENCE_SECONDS", 0.2)
    began = time.monotonic()
    with ScriptedServer([[[hold]]]) as server:
        finding = way(server.url).clock()
    assert finding.status is Status.FAILED
    assert time.monotonic() - began < 5
