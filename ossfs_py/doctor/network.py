"""Checks of the way to the store, without credentials: name, port, certificate, clock."""

import contextlib
import http.client
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from ossfs_py.doctor.findings import Finding, Status, failed, good, skipped, warning
from ossfs_py.store.s3.endpoint import Endpoint

_PATIENCE_SECONDS = 5.0
_SKEW_SECONDS = 60.0
"""Differences up to this are of no account anywhere."""
_REFUSED_SKEW_SECONDS = 15 * 60.0
"""The limit of SigV4: stores refuse signatures from a clock that differs more."""
_EXPIRY_DAYS = 14
_DAY_SECONDS = 86_400


class Way:
    """The way to one endpoint; later checks use what earlier ones have found."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ca_bundle: Path | None = None,
        verify_tls: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._ca_bundle = ca_bundle
        self._verify_tls = verify_tls
        self._clock = clock
        self._host, self._port = endpoint.connect_host, endpoint.port
        self._proxy = _proxy_for(endpoint)
        if self._proxy is not None:
            self._host, self._port = self._proxy

    def check(self) -> Iterator[Finding]:
        """Everything in order; after a failure the rest is skipped."""
        for name, look in (
            ("name", self.name),
            ("port", self.port),
            ("certificate", self.certificate),
            ("clock", self.clock),
        ):
            finding = look()
            yield finding
            if finding.status is Status.FAILED and name != "clock":
                for later in ("name", "port", "certificate", "clock")[_position(name) + 1 :]:
                    yield skipped(later, f"as the {name} failed")
                return

    def name(self) -> Finding:
        """DNS knows the host."""
        via = "the proxy " if self._proxy else ""
        began = time.monotonic()
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            fix = "check --endpoint and --region, and /etc/resolv.conf"
            return failed("name", f"{via}{self._host} cannot be resolved: {reason}", fix)
        took = (time.monotonic() - began) * 1000
        addresses = sorted({str(entry[4][0]) for entry in found})
        told = f"{via}{self._host} is {', '.join(addresses[:4])} ({took:.0f} ms)"
        if took > 1000:
            return warning("name", told, "the name server is slow: run a caching one on this host")
        return good("name", told)

    def port(self) -> Finding:
        """Something listens there."""
        where = f"{'the proxy ' if self._proxy else ''}{self._host}:{self._port}"
        began = time.monotonic()
        try:
            socket.create_connection((self._host, self._port), _PATIENCE_SECONDS).close()
        except OSError as exc:
            reason = (exc.strerror or "it does not answer").lower()
            fix = "check the endpoint's port, firewalls, security groups and VPC endpoints"
            return failed("port", f"{where} cannot be reached: {reason}", fix)
        return good("port", f"{where} answers ({(time.monotonic() - began) * 1000:.1f} ms)")

    def certificate(self) -> Finding:
        """TLS works, and its certificate is trusted and lasts."""
        name = "certificate"
        if self._endpoint.scheme == "http":
            return skipped(name, "the endpoint is http://, nothing is encrypted")
        try:
            with self._connection() as connection:
                connection.connect()
                held = connection.sock
                peer = held.getpeercert() if isinstance(held, ssl.SSLSocket) else None
                version = held.version() if isinstance(held, ssl.SSLSocket) else None
        except ssl.SSLCertVerificationError as exc:
            fix = "name the right host, or trust its issuer with --ca-bundle"
            return failed(name, f"not trusted: {exc.verify_message}", fix)
        except OSError as exc:
            fix = "if the endpoint speaks http only, write http:// before it"
            reason = getattr(exc, "reason", "") or exc.strerror or str(exc)
            return failed(name, f"the TLS handshake failed: {reason}", fix)
        if not self._verify_tls:
            told = "not checked, because of --no-verify-tls"
            return warning(name, told, "trust the issuer with --ca-bundle instead")
        until = str((peer or {}).get("notAfter", ""))
        days = (ssl.cert_time_to_seconds(until) - self._clock()) / _DAY_SECONDS if until else 0.0
        left = f"{days:.0f} {'day' if round(days) == 1 else 'days'}"
        told = f"trusted, {version}, {left} left"
        if days < _EXPIRY_DAYS:
            return warning(name, told, "ask the operator of the store to renew it")
        return good(name, told)

    def clock(self) -> Finding:
        """This machine's clock and the store's agree."""
        try:
            with self._connection() as connection:
                # A proxy wants the whole URL, but not inside a tunnel.
                plain_proxy = self._proxy is not None and self._endpoint.scheme == "http"
                connection.request("HEAD", f"{self._endpoint.url if plain_proxy else ''}/")
                said = connection.getresponse().headers.get("Date", "")
            theirs = parsedate_to_datetime(said).timestamp()
        except (OSError, http.client.HTTPException) as exc:
            fix = "is the endpoint an S3 or OSS server?"
            return failed("clock", f"no answer over HTTP ({type(exc).__name__})", fix)
        except ValueError:
            return skipped("clock", "the store does not send its time")
        off = self._clock() - theirs
        fix = "set the clock: timedatectl set-ntp true, or run chrony"
        told = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the store's"
        if abs(off) > _REFUSED_SKEW_SECONDS:
            return failed("clock", f"{told}: signatures of most programs are refused", fix)
        if abs(off) > _SKEW_SECONDS:
            return warning("clock", told, fix)
        return good("clock", "within a second" if abs(off) < 1.5 else told)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection: http.client.HTTPConnection
        if self._endpoint.scheme == "https":
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_PATIENCE_SECONDS, context=self._tls()
            )
            if self._proxy is not None:
                connection.set_tunnel(self._endpoint.connect_host, self._endpoint.port)
        else:
            connection = http.client.HTTPConnection(
                self._host, self._port, timeout=_PATIENCE_SECONDS
            )
        with contextlib.closing(connection):
            yield connection

    def _tls(self) -> ssl.SSLContext:
        bundle = None if self._ca_bundle is None else str(self._ca_bundle)
        context = ssl.create_default_context(cafile=bundle)
        if not self._verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _position(name: str) -> int:
    return ("name", "port", "certificate", "clock").index(name)


def _proxy_for(endpoint: Endpoint) -> tuple[str, int] | None:
    """Host and port of the proxy that the environment names, as the store's dialer heeds it."""
    proxies = urllib.request.getproxies()
    url = proxies.get(endpoint.scheme) or proxies.get("all")
    if not url or urllib.request.proxy_bypass(endpoint.connect_host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return (parts.hostname, parts.port or 80) if parts.hostname else None
