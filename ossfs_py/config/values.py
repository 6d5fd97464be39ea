"""Names, paths and addresses as people write them.

Parsers raise ValueError with the end of a sentence that begins with the option's name.
"""

import os
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ossfs_py.sharedcache.members import FILE_PREFIX, parse_member


def absolute_path(value: object) -> Path:
    """A path as the daemon sees it after it has changed its directory to /."""
    # The daemon changes its directory to /, so relative paths are fixed here. No resolve(): that
    # would touch the mountpoint, which may be a dead or hanging mount.
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must not be empty")
    if "\0" in str(value):
        raise ValueError("must not contain a NUL byte")
    return Path(os.path.abspath(os.path.expanduser(value)))  # noqa: PTH100, PTH111 (no resolve)


def bucket_name(value: object) -> str:
    """A bucket's name; generous, as stores differ in what they allow."""
    text = str(value)
    if not text:
        raise ValueError("must not be empty")
    if text.startswith("/"):
        raise ValueError(f"{text!r} is a path; the bucket comes first, then the mountpoint")
    if len(text) > 255 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in text):
        raise ValueError(f"{text!r} is not a bucket name")
    return text


def key_prefix(value: object) -> str:
    """A key prefix in the form "" or ``a/b/``."""
    text = str(value).strip("/")
    if not text:
        return ""
    if "\0" in text or any(segment in ("", ".", "..") for segment in text.split("/")):
        raise ValueError(f"{value!r} is not a prefix: no empty, '.' or '..' segments")
    return text + "/"


def trash_prefix(value: object) -> str | None:
    """The place of kept copies: a key prefix; "" for the mount's own; None for nowhere."""
    text = str(value).strip()
    if value in (None, False) or text.lower() in ("no", "off", "false", "0"):
        return None
    if value is True or text.lower() in ("", "yes", "on", "true", "1"):
        return ""
    return key_prefix(text)


def endpoint_url(value: object) -> str:
    """An http or https URL of scheme, host and port; https when no scheme is given."""
    text = str(value).strip()
    if "@" in text:
        # Not echoed: it would show a secret.
        raise ValueError("must not carry a user name or password")
    url = text if "://" in text else "https://" + text
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_good = urlsplit(""), False
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        # Not echoed either: a pasted presigned URL is as good as a key.
        raise ValueError("must be scheme, host and port, without a path or query")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
        raise ValueError(f"{text!r} is not an http:// or https:// address")
    return url.rstrip("/")


def key_id(value: object) -> str:
    """The id, alias or ARN of a key, as it goes into a header."""
    text = str(value)
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be a key's id, alias or ARN")
    return text


def listen_address(value: object) -> str:
    """``host:port`` to listen on; a port alone means this machine only."""
    text = str(value).strip()
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and int(port) < 2**16) or "/" in host:
        raise ValueError(f"{text!r} is not an address; write it like 9464 or 0.0.0.0:9464")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_addresses(value: object) -> tuple[str, ...]:
    """IP addresses, with commas or spaces between them."""
    if isinstance(value, tuple):
        return value
    found = str(value).replace(",", " ").split()
    if not found:
        raise ValueError("must not be empty")
    for address in found:
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(
                f"{address!r} is not an IP address; write it like 10.0.0.5 or 10.0.0.5,10.0.1.5"
            ) from None
    return tuple(dict.fromkeys(found))


def shared_cache_nodes(value: object) -> str:
    """``HOST:PORT,…``, ``NAME:PORT`` or ``file:PATH``, the path made absolute."""
    text = str(value).strip()
    if text.startswith(FILE_PREFIX):
        return FILE_PREFIX + str(absolute_path(text.removeprefix(FILE_PREFIX)))
    if "@" in text:
        raise ValueError("must not carry a user name or password")
    hosts = [part.strip() for part in text.replace(" ", ",").split(",") if part.strip()]
    if not hosts:
        raise ValueError("must not be empty")
    for host in hosts:
        parse_member(host)
    return ",".join(hosts)


def words(value: object) -> tuple[str, ...]:
    """Words with commas or spaces between them, each once."""
    if isinstance(value, tuple):
        return value
    found = str(value).replace(",", " ").split()
    if not found:
        raise ValueError("must not be empty")
    return tuple(dict.fromkeys(found))


def user_id(value: object) -> int:
    """A user id, also given as a name."""
    import pwd  # noqa: PLC0415 (rarely needed)

    return _id(value, lambda name: pwd.getpwnam(name).pw_uid, "user")


def group_id(value: object) -> int:
    """A group id, also given as a name."""
    import grp  # noqa: PLC0415 (rarely needed)

    return _id(value, lambda name: grp.getgrnam(name).gr_gid, "group")


def _id(value: object, by_name: Callable[[str], int], kind: str) -> int:
    text = str(value)
    # 2**32 - 1 is (uid_t)-1, which chown(2) takes as "leave alone".
    if text.isdigit() and int(text) < 2**32 - 1:
        return int(text)
    try:
        return by_name(text)
    except KeyError:
        raise ValueError(f"{text!r} is neither a number nor a {kind} of this machine") from None
