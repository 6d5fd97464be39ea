"""What a ranged GET makes of a server that misbehaves."""

import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ossfs_py.errors import (
    AccessDeniedError,
    ArchivedError,
    BucketMissingError,
    ObjectMissingError,
    RetainedError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import ObjectVersion
from tests.support.scripted_server import (
    ETAG,
    Peer,
    ScriptedServer,
    Step,
    error,
    hang_up,
    hold,
    ranged,
    raw,
    read_only,
    reply,
    reset,
    store_for,
)

CONTENT = bytes(range(256)) * 8192  # 2 MiB: well past the receiver's low-water mark
VERSION = ObjectVersion("key", ETAG, len(CONTENT))


def read(
    server: ScriptedServer, start: int = 0, size: int = len(CONTENT), **options: object
) -> bytes:
    store = store_for(server.url, **options)
    buffer = bytearray(size)
    try:
        store.get_range_into(VERSION, start, memoryview(buffer))
    finally:
        store.close()
    return bytes(buffer)


def test_one_request_fetches_one_range_pinned_to_its_version() -> None:
    with ScriptedServer([[[ranged(CONTENT)]]]) as server:
        assert read(server, 1000, 300_000) == CONTENT[1000:301_000]
    (seen,) = server.requests
    assert seen.target == "/bucket/key"
    assert seen.headers["range"] == "bytes=1000-300999"
    assert seen.headers["if-match"] == f'"{ETAG}"'
    assert "authorization" not in seen.headers  # anonymous


def test_the_time_to_the_first_byte_is_noted() -> None:
    def late(peer: Peer) -> None:
        time.sleep(0.05)

    with ScriptedServer([[[late, ranged(CONTENT)]]]) as server:
        store = store_for(server.url)
        buffer = bytearray(7)
        store.get_range_into(VERSION, 0, memoryview(buffer))
        assert not store.first_bytes.come_at_once
        assert store.first_bytes._seconds < 10
        store.close()


def test_an_empty_buffer_costs_no_request() -> None:
    with ScriptedServer([]) as server:
        assert read(server, 10, 0) == b""


def test_connections_are_kept_and_the_last_used_is_taken_first() -> None:
    with ScriptedServer([[[ranged(CONTENT)]] * 3]) as server:
        store = store_for(server.url)
        for start in (0, 5, 10):
            buffer = bytearray(5)
            store.get_range_into(VERSION, start, memoryview(buffer))
            assert buffer == CONTENT[start : start + 5]
        store.close()
    assert [seen.connection for seen in server.requests] == [0, 0, 0]


@pytest.mark.parametrize("cut", [0, 1, 1000, 300_000, len(CONTENT) - 1])
@pytest.mark.parametrize("end", [hang_up, hold], ids=["closed", "stalled"])
def test_a_broken_body_is_taken_up_where_it_broke_off(cut: int, end: Step) -> None:
    broken = [ranged(CONTENT, stop_after=cut), end]
    with ScriptedServer([[broken], [[ranged(CONTENT)]]]) as server:
        assert read(server) == CONTENT
    assert server.requests[1].headers["range"] == f"bytes={cut}-{len(CONTENT) - 1}"
    assert server.requests[1].connection == 1


def test_a_stalled_answer_is_given_up_for_a_new_connection() -> None:
    with ScriptedServer([[[hold]], [[ranged(CONTENT)]]]) as server:
        assert read(server) == CONTENT


def test_a_connection_reset_before_the_answer_is_replaced() -> None:
    with ScriptedServer([[[reset]], [[ranged(CONTENT)]]]) as server:
        assert read(server) == CONTENT


def test_a_stale_kept_connection_costs_no_attempt() -> None:
    with ScriptedServer([[[ranged(CONTENT)], [hang_up]], [[ranged(CONTENT)]]]) as server:
        store = store_for(server.url, retry_budget_seconds=0.0)
        buffer = bytearray(7)
        store.get_range_into(VERSION, 0, memoryview(buffer))
        store.get_range_into(VERSION, 7, memoryview(buffer))
        store.close()
        assert buffer == CONTENT[7:14]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_busy_store_is_asked_again(status: int) -> None:
    with ScriptedServer([[[error(status, "SlowDown")]], [[ranged(CONTENT)]]]) as server:
        assert read(server, 0, 100) == CONTENT[:100]


def test_retry_after_beyond_the_budget_ends_the_attempts() -> None:
    busy = error(503, "SlowDown", {"retry-after": "20"})
    with ScriptedServer([[[busy]]]) as server, pytest.raises(StoreUnavailableError) as caught:
        read(server, 0, 100)
    assert caught.value.request_id == "REQ1"
    assert caught.value.attempts == 1


def test_the_budget_ends_the_attempts() -> None:
    busy = [[error(500, "InternalError")]]
    with ScriptedServer([busy] * 50) as server, pytest.raises(StoreUnavailableError) as caught:
        read(server, 0, 100, retry_budget_seconds=0.5)
    assert caught.value.attempts == len(server.requests) > 1


def described(etag: str) -> Step:
    """The answer to a HEAD."""
    fields = {"etag": f'"{etag}"', "last-modified": "Tue, 01 Dec 2026 12:00:00 GMT"}
    return reply(200, b"", fields, length=len(CONTENT))


ANOTHER = "f" * 32
SAYS_CHANGED = pytest.mark.parametrize(
    "answer",
    [
        error(412, "PreconditionFailed"),
        error(416, "InvalidRange"),
        ranged(CONTENT, etag=ANOTHER),
    ],
    ids=["condition", "range", "etag"],
)


@SAYS_CHANGED
def test_an_object_that_has_changed_is_another_version(answer: Step) -> None:
    with (
        ScriptedServer([[[answer, hang_up]], [[described(ANOTHER)]]]) as server,
        pytest.raises(VersionChangedError),
    ):
        read(server)
    assert [each.method for each in server.requests] == ["GET", "HEAD"]


@SAYS_CHANGED
def test_an_object_that_has_not_changed_is_read_whatever_a_store_says_of_it(answer: Step) -> None:
    """As a server did whose disk was busy; a program that has mapped the file would be killed."""
    script = [[[answer, hang_up]], [[described(ETAG)], [ranged(CONTENT)]]]
    with ScriptedServer(script) as server:
        assert read(server) == CONTENT
    assert [each.method for each in server.requests] == ["GET", "HEAD", "GET"]


def test_a_store_that_contradicts_itself_again_and_again_is_believed() -> None:
    denied, unchanged = [error(412, "PreconditionFailed")], [described(ETAG)]
    with (
        ScriptedServer([[denied, unchanged, denied, unchanged, denied]]) as server,
        pytest.raises(VersionChangedError),
    ):
        read(server)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(404, "NoSuchKey"), ObjectMissingError),
        (error(404, "NoSuchBucket"), BucketMissingError),
        (error(403, "AccessDenied"), AccessDeniedError),
        (error(403, "InvalidObjectState"), ArchivedError),
        (error(409, "FileImmutable"), RetainedError),
        (error(403, "AccessDenied", said="object protected by object lock"), RetainedError),
        (error(403, "AccessDenied", said="no right s3:PutObjectRetention"), AccessDeniedError),
        (error(400, "InvalidRequest", said="Object is WORM protected"), RetainedError),
        (reply(401), AccessDeniedError),
        (error(400, "InvalidArgument"), StoreError),
        (error(400, "KMS.DisabledException"), AccessDeniedError),
        (error(301, "PermanentRedirect"), StoreError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_error_answer_becomes_its_exception_at_once(
    answer: Step, expected: type[StoreError]
) -> None:
    with ScriptedServer([[[answer]]]) as server, pytest.raises(StoreError) as caught:
        read(server)
    assert type(caught.value) is expected
    assert len(server.requests) == 1


def test_a_whole_object_may_come_as_200() -> None:
    with ScriptedServer([[[reply(200, CONTENT, {"etag": f'"{ETAG}"'})]]]) as server:
        assert read(server) == CONTENT


def test_an_ignored_range_is_refused_rather_than_mistaken_for_the_range() -> None:
    whole = reply(200, CONTENT, {"etag": f'"{ETAG}"'})
    scripts = [[[whole, hold]], [[whole, hold]], [[whole, hold]]]
    with ScriptedServer(scripts) as server, pytest.raises(UnsupportedByStoreError):
        read(server, 5, 100)


def test_a_shifted_range_is_asked_for_again() -> None:
    headers = {"etag": f'"{ETAG}"', "content-range": f"bytes 1-100/{len(CONTENT)}"}
    wrong = reply(206, CONTENT[1:101], headers)
    with ScriptedServer([[[wrong]], [[ranged(CONTENT)]]]) as server:
        assert read(server, 0, 100) == CONTENT[:100]


def test_a_chunked_answer_is_understood() -> None:
    head = (
        f'HTTP/1.1 206 X\r\netag: "{ETAG}"\r\ntransfer-encoding: chunked\r\n'
        f"content-range: bytes 0-9/{len(CONTENT)}\r\n\r\n"
    ).encode()
    chunks = b"3;x=y\r\n" + CONTENT[:3] + b"\r\n7\r\n" + CONTENT[3:10] + b"\r\n0\r\nt: v\r\n\r\n"
    with ScriptedServer([[[raw(head), raw(chunks)], [ranged(CONTENT)]]]) as server:
        store = store_for(server.url)
        buffer = bytearray(10)
        for _ in range(2):  # the connection can be used again after the trailer
            store.get_range_into(VERSION, 0, memoryview(buffer))
            assert buffer == CONTENT[:10]
        store.close()
    assert [seen.connection for seen in server.requests] == [0, 0]


def test_an_interim_answer_is_passed_over() -> None:
    with ScriptedServer([[[raw(b"HTTP/1.1 102 Wait\r\n\r\n"), ranged(CONTENT)]]]) as server:
        assert read(server, 3, 4) == CONTENT[3:7]


def test_a_connection_that_the_server_wants_closed_is_not_used_again() -> None:
    span = {
        "etag": f'"{ETAG}"',
        "content-range": f"bytes 0-9/{len(CONTENT)}",
        "connection": "close",
    }
    with ScriptedServer([[[reply(206, CONTENT[:10], span), hold]], [[ranged(CONTENT)]]]) as server:
        store = store_for(server.url)
        for _ in range(2):
            store.get_range_into(VERSION, 0, memoryview(bytearray(10)))
        store.close()
    assert [seen.connection for seen in server.requests] == [0, 1]


def test_close_ends_a_call_in_progress() -> None:
    outcome: list[BaseException] = []
    asked = threading.Event()

    def tell(_: object) -> None:
        asked.set()

    with ScriptedServer([[[tell, hold]]]) as server:
        store = store_for(server.url, stall_timeout_seconds=60.0)

        def get() -> None:
            try:
                store.get_range_into(VERSION, 0, memoryview(bytearray(10)))
            except StoreUnavailableError as exc:
                outcome.append(exc)

        thread = threading.Thread(target=get)
        thread.start()
        assert asked.wait(120)
        store.close()
        thread.join(120)
    assert [exc.args[0] for exc in outcome] == ["the store is closed"]


def test_a_server_that_speaks_no_http_is_no_store() -> None:
    with (
        ScriptedServer([[[raw(b"SSH-2.0-x\r\n\r\n")]]]) as server,
        pytest.raises(StoreUnavailableError, match="does not speak HTTP"),
    ):
        read(server, 0, 10, retry_budget_seconds=0.0)


def test_answers_come_through_tls_checked_against_the_given_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
        f"-keyout {tmp_path}/key.pem -out {bundle} "
        f"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(bundle, tmp_path / "key.pem")
    script = [[ranged(CONTENT)], [ranged(CONTENT), hold]]
    with ScriptedServer([script], context) as server:
        store = store_for(server.url, ca_bundle=bundle, stall_timeout_seconds=5.0)
        for _ in range(2):
            buffer = bytearray(len(CONTENT))
            store.get_range_into(VERSION, 0, memoryview(buffer))
            assert buffer == CONTENT
        store.close()
    assert [seen.connection for seen in server.requests] == [0, 0]
    with ScriptedServer([script], context) as server:
        assert read(server, verify_tls=False, stall_timeout_seconds=5.0) == CONTENT
    with (
        ScriptedServer([script], context) as server,
        pytest.raises(StoreUnavailableError, match="TLS"),
    ):
        read(server, retry_budget_seconds=0.0)


def test_a_request_without_answer_is_not_repeated_for_ever() -> None:
    with (
        ScriptedServer([[[read_only, hang_up]]] * 20) as server,
        pytest.raises(StoreUnavailableError, match="closed before an answer"),
    ):
        read(server, 0, 10, retry_budget_seconds=0.3)


def drip(peer: Peer) -> None:
    """A byte every now and then, for as long as the client listens."""
    while not peer.closing.wait(0.05):
        peer.sock.sendall(b"x")


def test_a_head_that_drips_is_given_up_for_a_new_connection() -> None:
    scripts = [[[raw(b"HTTP/1.1 206 OK\r\nx-slow: "), drip]], [[ranged(CONTENT)]]]
    with ScriptedServer(scripts) as server:
        assert read(server) == CONTENT
    assert len(server.requests) == 2


def test_a_body_that_drips_is_taken_up_where_it_was_left() -> None:
    head = (
        f'HTTP/1.1 206 X\r\netag: "{ETAG}"\r\ncontent-length: 1000000\r\n'
        f"content-range: bytes 0-999999/{len(CONTENT)}\r\n\r\n"
    ).encode()

    def drip_content(peer: Peer) -> None:
        position = 0
        while not peer.closing.wait(0.05):
            peer.sock.sendall(CONTENT[position : position + 1])
            position += 1

    with ScriptedServer([[[raw(head), drip_content]], [[ranged(CONTENT)]]]) as server:
        assert read(server, 0, 1_000_000) == CONTENT[:1_000_000]
    assert server.requests[1].headers["range"].startswith("bytes=")
    assert not server.requests[1].headers["range"].startswith("bytes=0-")


def test_requests_go_by_the_stores_clock_once_it_complains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signature's date comes from our clock, which may be wrong; the answer tells the right."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    skewed = error(403, "RequestTimeTooSkewed", {"date": "Sun, 06 Nov 1994 08:49:37 GMT"})
    with ScriptedServer([[[skewed]], [[ranged(CONTENT)], [ranged(CONTENT)]]]) as server:
        store = store_for(server.url, anonymous=False)
        for _ in range(2):
            store.get_range_into(VERSION, 0, memoryview(bytearray(100)))
        store.close()
    dates = [seen.headers["x-amz-date"][:8] for seen in server.requests]
    assert dates[0] > "2025"
    assert dates[1:] == ["19941106"] * 2


def test_a_clock_that_stays_wrong_for_the_store_ends_in_denied_access() -> None:
    skewed = error(403, "RequestTimeTooSkewed", {"date": "Sun, 06 Nov 1994 08:49:37 GMT"})
    with (
        ScriptedServer([[[skewed]], [[skewed]]]) as server,
        pytest.raises(AccessDeniedError, match="RequestTimeTooSkewed"),
    ):
        read(server)


def test_an_address_that_failed_is_the_last_to_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two addresses of one name, as every large store has; one of them stalls."""
    found = socket.getaddrinfo

    def two_addresses(host: str, port: int, **more: int) -> list[tuple[object, ...]]:
        (entry,) = found("127.0.0.1", port, **more)  # type: ignore[arg-type]
        return [(*entry[:4], (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with ScriptedServer([[[hold]], [[ranged(CONTENT)]]], host="0.0.0.0") as server:
        assert read(server) == CONTENT
    assert [seen.address for seen in server.requests] == ["127.0.0.1", "127.0.0.2"]


def test_one_ignored_range_among_other_failures_is_an_accident() -> None:
    whole = reply(200, CONTENT, {"etag": f'"{ETAG}"'})
    scripts = [[[reset]], [[error(500, "InternalError")]], [[whole, hold]], [[ranged(CONTENT)]]]
    with ScriptedServer(scripts) as server:
        assert read(server, 5, 100) == CONTENT[5:105]
