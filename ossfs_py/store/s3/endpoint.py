"""The bucket's address: host, port, addressing style and region, found without I/O."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from ossfs_py.errors import UsageError
from ossfs_py.store.http.dialing import DEFAULT_PORTS, Origin, Trust, authority
from ossfs_py.store.options import StoreOptions

_OSS_SUFFIXES = (".aliyuncs.com", ".aliyuncs-internal.com")
_R2_SUFFIX = ".r2.cloudflarestorage.com"
# oss-cn-hangzhou.aliyuncs.com, s3.oss-cn-hangzhou-internal.aliyuncs.com,
# cn-hangzhou.oss.aliyuncs.com (dual stack)
_OSS_REGION = re.compile(r"^(?:s3\.)?oss-([a-z0-9-]+?)(?:-internal)?\.aliyuncs(?:-internal)?\.com$")
_OSS_DUAL_STACK = re.compile(r"^(?:s3\.)?([a-z0-9-]+)\.oss\.aliyuncs\.com$")
_AWS_REGION = re.compile(r"^s3[.-](?:dualstack\.|fips\.)*([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com")
_FALLBACK_REGION = "us-east-1"
"""The default of AWS; servers without regions accept it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of one bucket. ``host`` is the service's name, without the bucket."""

    scheme: str
    host: str
    port: int
    bucket: str
    region: str
    virtual: bool
    """The bucket is part of the host name, not of the path."""
    is_oss: bool

    @property
    def is_r2(self) -> bool:
        """Whether it is Cloudflare R2, which wants parts of one size."""
        return self.host.endswith(_R2_SUFFIX)

    @property
    def url(self) -> str:
        """The service's URL, without the bucket."""
        return f"{self.scheme}://{authority(self.scheme, self.host, self.port)}"

    @property
    def connect_host(self) -> str:
        """The name to resolve and to check in a certificate."""
        return f"{self.bucket}.{self.host}" if self.virtual else self.host

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        return authority(self.scheme, self.connect_host, self.port)

    def origin(self, trust: Trust) -> Origin:
        """The origin for requests; ``trust`` matters for https only."""
        return Origin(self.connect_host, self.port, trust if self.scheme == "https" else None)

    def path_of(self, key: str) -> str:
        """The request path of a key, percent-encoded for SigV4; "" is the bucket."""
        encoded = quote(key, safe="/-_.~", errors="surrogateescape")
        if self.virtual:
            return f"/{encoded}"
        return f"/{self.bucket}/{encoded}" if key else f"/{self.bucket}"


def resolve_endpoint(options: StoreOptions, configured_region: str | None) -> Endpoint:
    """The endpoint that ``options`` mean; ``configured_region`` comes from profile or environment.

    Raises:
        UsageError: the endpoint is no URL of a service.
    """
    if options.endpoint is None:
        region = options.region or configured_region or _FALLBACK_REGION
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        scheme, host, port = "https", f"s3.{region}.{suffix}", DEFAULT_PORTS["https"]
    else:
        scheme, host, port = _split(options.endpoint)
    is_oss = host.endswith(_OSS_SUFFIXES)
    if host.startswith(f"{options.bucket}.") and (is_oss or ".amazonaws.com" in host):
        host = host.removeprefix(f"{options.bucket}.")
    # OSS answers the S3 protocol under these names; users know the native ones.
    if is_oss and host.startswith("oss-"):
        host = f"s3.{host}"
    return Endpoint(
        scheme=scheme,
        host=host,
        port=port,
        bucket=options.bucket,
        region=options.region or _region_of(host) or configured_region or _FALLBACK_REGION,
        virtual=_is_virtual(options, scheme, host, is_oss=is_oss),
        is_oss=is_oss,
    )


def _split(endpoint: str) -> tuple[str, str, int]:
    url = endpoint if "://" in endpoint else f"https://{endpoint}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"the endpoint {endpoint!r} is not a URL: {exc}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError("the endpoint must not hold a user name or password")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise UsageError(f"the endpoint {endpoint!r} is not an http:// or https:// URL")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(
            f"the endpoint {endpoint!r} must be scheme, host and port only (the bucket is given "
            "on its own)"
        )
    return parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]


def _region_of(host: str) -> str | None:
    for pattern in (_OSS_REGION, _OSS_DUAL_STACK, _AWS_REGION):
        if (match := pattern.match(host)) and match.group(1) != "accelerate":
            return match.group(1)
    return None


def _is_virtual(options: StoreOptions, scheme: str, host: str, *, is_oss: bool) -> bool:
    if options.addressing != "auto":
        return options.addressing == "virtual"
    if is_oss:
        return True
    if _is_address(host) or "amazonaws.com" not in host:
        return False
    # A wildcard certificate covers one label, so a dotted bucket name fails TLS.
    return not (scheme == "https" and "." in options.bucket)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
