"""The HTTP server of a mount: ``GET /metrics`` for Prometheus, and ``/``, a page for people.

The trio thread answers, because it owns most of the metrics. Reads need that thread, too, and a
scrape takes some 2 ms of it. So all clients together get a small share of its time.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from urllib.parse import urlsplit

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.telemetry.status import MountStatus
from ossfs_py.telemetry.statuspage import COMMON_HEADERS, STATUS_PATH, page, page_headers

log = logging.getLogger(__name__)

PATH = "/metrics"

_MAX_REQUEST_BYTES = 16 * 1024
"""Scrapers send some 300 bytes."""
_MAX_CLIENTS = 8
"""More scrapes wait: nobody can make the mount serve scrapes instead of reads."""
_MAX_CONNECTIONS = 32
"""More are closed at once: each takes a descriptor, which reads need."""
_CLIENT_SECONDS = 10.0
"""Prometheus gives up a scrape after 10 s by default."""
_WAITING_SECONDS = 2 * _CLIENT_SECONDS
"""For a place among those that are served: long enough for silent ones to be given up."""
_RECEIVE_BYTES = 4096
_HTML = "text/html; charset=utf-8"
_SHARE = 20
"""One part in this many of the thread's time is the most that telling the metrics may take."""
_ACCEPT_SECONDS = 0.005
"""Between two connections: taking one, and closing it, costs some 0.2 ms."""


@asynccontextmanager
async def exposed(
    address: str | None, registry: CollectorRegistry, status: MountStatus | None = None
) -> AsyncIterator[None]:
    """Answer scrapes of ``registry`` at ``address`` (``host:port``; None: nowhere) for the block.

    With a ``status`` the page that shows it is there, too.

    Raises:
        EnvironmentProblemError: the address cannot be listened on.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    listeners = await _listen(host.strip("[]"), int(port), address)
    server = _MetricsServer(registry, status)
    async with trio.open_nursery() as nursery:
        unhurried = [_Unhurried(listener) for listener in listeners]
        nursery.start_soon(trio.serve_listeners, server.serve, unhurried)
        if status is not None:
            nursery.start_soon(status.run)
        for listener in listeners:
            name = listener.socket.getsockname()
            shown = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
            log.info("metrics are served at http://%s%s", shown, PATH)
        yield
        nursery.cancel_scope.cancel()


async def _listen(host: str, port: int, address: str) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as exc:
        cause = exc
        if isinstance(exc.__cause__, ExceptionGroup):
            cause = next((one for one in exc.__cause__.exceptions if isinstance(one, OSError)), exc)
        reason = (cause.strerror or str(cause)).lower()
        raise EnvironmentProblemError(
            f"metrics cannot be served at {address}: {reason} (see --metrics-address)"
        ) from None


class _Unhurried(trio.abc.Listener[trio.SocketStream]):
    """Takes connections one by one, with a pause; the kernel keeps those that wait."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener

    async def accept(self) -> trio.SocketStream:
        """The next connection."""
        await trio.sleep(_ACCEPT_SECONDS)
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Listen no more."""
        await self._listener.aclose()


class _Share:
    """The loop's time that renderings may take, one after the other."""

    def __init__(self) -> None:
        self.turn = trio.Lock()
        self._next_at = 0.0

    async def make(self, render: Callable[[], bytes]) -> bytes:
        """What ``render`` makes, once it may. For who has the turn."""
        await trio.sleep_until(self._next_at)
        began = perf_counter()
        text = render()
        pause_seconds = (_SHARE - 1) * (perf_counter() - began)
        self._next_at = trio.current_time() + pause_seconds
        return text


class _Rendering:
    """A text made for all who wait for it, and not too often."""

    def __init__(self, render: Callable[[], bytes], share: _Share) -> None:
        self._render = render
        self._share = share
        self._text = b""
        self._began_at = -1.0

    async def text(self) -> bytes:
        """The text as it is at some moment after this call."""
        asked_at = trio.current_time()
        async with self._share.turn:
            if self._began_at < asked_at:
                self._text = await self._share.make(self._begun)
            return self._text

    def _begun(self) -> bytes:
        self._began_at = trio.current_time()
        return self._render()


class _MetricsServer:
    def __init__(self, registry: CollectorRegistry, status: MountStatus | None) -> None:
        share = _Share()
        self._metrics = _Rendering(lambda: generate_latest(registry), share)
        self._status = None if status is None else _Rendering(status.told, share)
        self._clients = trio.CapacityLimiter(_MAX_CLIENTS)
        self._connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, one request: what a scrape every few seconds needs."""
        if self._connections >= _MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            async with stream:
                with trio.fail_after(_WAITING_SECONDS):
                    await self._clients.acquire()
                try:
                    with trio.move_on_after(_CLIENT_SECONDS):
                        await self._exchange(stream)
                finally:
                    self._clients.release()
        except (trio.BrokenResourceError, trio.TooSlowError):
            log.debug("a scraper went away, or waited for too long")
        except Exception:
            # A scrape that goes wrong is no reason to end the mount.
            log.exception("a scrape failed")
        finally:
            self._connections -= 1

    async def _exchange(self, stream: trio.SocketStream) -> None:
        line = await _request_line(stream)
        await stream.send_all(await self._answer(line))
        await _drained(stream)

    async def _answer(self, line: bytes) -> bytes:
        method, _, rest = line.partition(b" ")
        target = urlsplit(rest.partition(b" ")[0]).path.decode("latin-1")
        if method not in (b"GET", b"HEAD"):
            return _message("405 Method Not Allowed", b"only GET\n", extra="Allow: GET, HEAD\r\n")
        head_only = method == b"HEAD"
        if target == PATH:
            body = await self._metrics.text()
            return _message("200 OK", body, CONTENT_TYPE_LATEST, head_only=head_only)
        if self._status is not None and target == STATUS_PATH:
            body = await self._status.text()
            return _message(
                "200 OK", body, "application/json", extra=COMMON_HEADERS, head_only=head_only
            )
        if self._status is not None and target == "/":
            return _message("200 OK", page(), _HTML, extra=page_headers(), head_only=head_only)
        return _message("404 Not Found", f"metrics are at {PATH}\n".encode())


async def _request_line(stream: trio.SocketStream) -> bytes:
    """The first line of the request, once its whole head has arrived; empty if it never does."""
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        piece = await stream.receive_some(_RECEIVE_BYTES)
        if not piece or len(head) > _MAX_REQUEST_BYTES:
            return b""
        head += piece
    return bytes(head).splitlines()[0]


async def _drained(stream: trio.SocketStream) -> None:
    """Let the client close first: closing with unread data would reset its answer away."""
    await stream.send_eof()
    while await stream.receive_some(_RECEIVE_BYTES):
        pass


def _message(
    status: str,
    body: bytes,
    content_type: str = "text/plain; charset=utf-8",
    *,
    extra: str = "",
    head_only: bool = False,
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"{extra}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)
