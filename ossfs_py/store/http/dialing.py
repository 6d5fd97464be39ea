"""Opening connections: by name and address, directly or through a proxy, with TLS or without."""

import base64
import hashlib
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.http.addresses import AddressBook
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import FaultKind, NoAnswerError
from ossfs_py.store.http.limiting import Limits
from ossfs_py.store.http.tls import TlsStream

DEFAULT_PORTS = {"http": 80, "https": 443}

_PROXY_HEAD_BYTES = 16 * 1024
_STATUS_DIGITS = 3
_CONNECTS = 4
"""Number of addresses that may be silent for the whole connect timeout, before the last one is
tried. A name may have any number of addresses.
"""
_GREETINGS = 2
"""How many connect timeouts the proxy's answer and the TLS handshake may take."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The accepted certificates: those of ``ca_bundle`` (None: of the system), or all."""

    ca_bundle: Path | None = None
    verify: bool = True

    @property
    def name(self) -> str:
        """An identifier of this trust; "" is the system's own. Reads the bundle: two bundles of
        equal content have one identifier, and new content under an old name has another.
        """
        if not self.verify:
            return "unverified"
        if self.ca_bundle is not None:
            return f"bundle {_content_digest(self.ca_bundle)}"
        # OpenSSL lets SSL_CERT_FILE and SSL_CERT_DIR replace the system's; any user can set them.
        paths, names = ssl.get_default_verify_paths(), []
        if paths.cafile not in (None, paths.openssl_cafile):
            names.append(f"file {_content_digest(Path(paths.cafile))}")
        if paths.capath not in (None, paths.openssl_capath):
            names.append(f"directory {paths.capath}")
        return " ".join(names)


@dataclass(frozen=True, slots=True)
class Origin:
    """The host that requests go to."""

    host: str
    """The name to resolve and to check in a certificate, or an address."""
    port: int
    trust: Trust | None
    """None: plain http."""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self.trust is None else "https"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return authority(self.scheme, self.host, self.port)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a peer may take, in seconds: to connect, and between two bytes."""

    connect_seconds: float
    stall_seconds: float


def authority(scheme: str, host: str, port: int) -> str:
    """Host and port as in a URL: an IPv6 address in brackets, no default port."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == DEFAULT_PORTS[scheme] else f"{shown}:{port}"


class Dialer:
    """Opens connections to one origin; respects http_proxy, https_proxy and no_proxy.

    Safe for concurrent use.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        limits: Limits | None = None,
        bind: Sequence[str] = (),
    ) -> None:
        """Sends nothing yet. ``bind`` are the addresses of this machine to connect from in turn.

        Raises:
            EnvironmentProblemError: the CA bundle, the proxy of the environment or an address of
                ``bind`` cannot be used.
        """
        self._origin = origin
        self._timeouts = timeouts
        self._proxy = _find_proxy(origin)
        self._tls = None if origin.trust is None else _tls_context(origin.trust)
        self.target_prefix = ""
        """Prefix of the path in a request line (an http proxy wants the whole URL)."""
        self.proxy_headers: dict[str, str] = {}
        self.answering_proxy = ""
        """``host:port`` of an http proxy, whose own answers look like the store's; "" without a
        proxy, and for https.
        """
        self._limits = limits or Limits()
        self._addresses = AddressBook(bind)
        if self._proxy is not None and self._tls is None:
            self.target_prefix = f"http://{origin.authority}"
            self.proxy_headers = self._proxy.headers
            self.answering_proxy = f"{self._proxy.host}:{self._proxy.port}"

    def avoid(self, address: str) -> None:
        """Try the store's other addresses first for a while, as this one failed."""
        self._addresses.avoid(address)

    def dial(self) -> Connection:
        """A new connection, TLS included. Blocking; the caller closes it.

        Raises:
            NoAnswerError: with the kind of the failure.
        """
        origin, proxy = self._origin, self._proxy
        host, port = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
        where = f"{'the proxy ' if proxy else ''}{host}:{port}"
        try:
            sock = self._connect(host, port)
        except socket.gaierror:
            raise NoAnswerError(f"the name {host} cannot be resolved", "resolve") from None
        except ConnectionRefusedError:
            raise NoAnswerError(f"{where} refuses connections", "refused") from None
        except TimeoutError:
            raise NoAnswerError(f"{where} does not answer", "timeout") from None
        except OSError as exc:
            raise NoAnswerError(f"{where} cannot be reached: {exc.strerror}", "refused") from None
        tls: TlsStream | None = None
        try:
            if self._tls is not None:
                ends_at = time.monotonic() + _GREETINGS * self._timeouts.connect_seconds
                if proxy is not None:
                    target = f"{origin.host}:{origin.port}"
                    open_tunnel(sock, target, proxy.headers, where, ends_at)
                tls = TlsStream(sock, self._tls, origin.host, ends_at)
            return self._limits.connection(sock, self._timeouts.stall_seconds, tls)
        except ssl.SSLError as exc:
            sock.close()
            reason = getattr(exc, "verify_message", "") or exc.reason or "handshake failed"
            raise NoAnswerError(f"TLS with {where} failed: {reason}", "tls") from None
        except OSError as exc:
            sock.close()
            kind: FaultKind = "timeout" if isinstance(exc, TimeoutError) else "tls"
            raise NoAnswerError(f"TLS with {where} failed: {exc}", kind) from None
        except BaseException:
            sock.close()
            raise

    def _connect(self, host: str, port: int) -> socket.socket:
        """A socket to the first address that accepts."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ends_at = time.monotonic() + _CONNECTS * self._timeouts.connect_seconds
        failure = OSError(0, "it has no address of the kind of those to come from")
        for family, kind, protocol, _, address in self._addresses.in_turn(found):
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(self._timeouts.connect_seconds)
            try:
                self._limits.prepare(sock)
                self._addresses.bind(sock)
                sock.connect(address)
            except OSError as exc:
                sock.close()
                failure = exc
            else:
                return sock
            if time.monotonic() > ends_at:
                break
        raise failure


def open_tunnel(
    sock: socket.socket, target: str, headers: Mapping[str, str], proxy: str, ends_at: float
) -> None:
    """Ask the proxy at the other end for a tunnel to ``target`` (``host:port``).

    ``proxy`` is its name in errors; ``ends_at`` is a monotonic time. The socket has a timeout.

    Raises:
        NoAnswerError: the proxy refuses, or sends no whole answer within the time or size.
        OSError: the connection broke, or was silent for the socket's timeout.
    """
    lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = bytearray()
    # The first byte after the head belongs to TLS, so the head is read exactly to its end.
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if time.monotonic() > ends_at:
            raise NoAnswerError(f"{proxy} takes too long to answer CONNECT", "timeout")
        if not byte or len(answer) >= _PROXY_HEAD_BYTES:
            break
        answer += byte
    words = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    is_http = len(words) > 1 and words[0].startswith("HTTP/1.") and len(words[1]) == _STATUS_DIGITS
    status = words[1] if is_http and words[1].isascii() and words[1].isdigit() else "nothing"
    if status != "200" or not answer.endswith(b"\r\n\r\n"):
        raise NoAnswerError(f"{proxy} answered {status} to CONNECT", "proxy")


class _Proxy:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise EnvironmentProblemError(
                f"a proxy of the kind {parts.scheme!r} is configured in the environment; only "
                "http:// proxies can be used"
            )
        self.host = parts.hostname
        self.port = parts.port or 80
        self.headers: dict[str, str] = {}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self.headers["proxy-authorization"] = f"Basic {base64.b64encode(login).decode()}"


def _find_proxy(origin: Origin) -> _Proxy | None:
    proxies = urllib.request.getproxies()
    url = proxies.get(origin.scheme) or proxies.get("all")
    if not url or urllib.request.proxy_bypass(origin.host):
        return None
    return _Proxy(url)


def _content_digest(path: Path) -> str:
    """The digest of a bundle; that of its name if it cannot be read, as OpenSSL skips it."""
    try:
        content = path.read_bytes()
    except OSError:
        content = os.fsencode(path)
    return hashlib.sha256(content).hexdigest()


def _tls_context(trust: Trust) -> ssl.SSLContext:
    bundle = trust.ca_bundle
    try:
        context = ssl.create_default_context(cafile=None if bundle is None else str(bundle))
    except (OSError, ssl.SSLError):
        raise EnvironmentProblemError(
            f"the CA bundle {bundle} cannot be read or holds no certificate"
        ) from None
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
