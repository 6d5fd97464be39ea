"""Settings that cannot go together, and why."""

import os
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from ossfs_py.config.fields import SettingFields
from ossfs_py.config.model import Conflict

_OSS_DOMAIN = ".aliyuncs.com"
_MIN_BLOCKS = 4
"""One block being read, one being fetched, one being written and one to spare."""


def _several_credentials(s: SettingFields) -> list[Conflict]:
    given = [n for n in ("anonymous", "profile", "credentials_file") if getattr(s, n)]
    return [(tuple(given), "only one of them can be used")] if len(given) > 1 else []


def _block_size(s: SettingFields) -> list[Conflict]:
    found: list[Conflict] = []
    if s.block_size_bytes & (s.block_size_bytes - 1):
        found.append((("block_size_bytes",), "must be a power of two, like 4MiB or 8MiB"))
    if s.memory_limit_bytes < _MIN_BLOCKS * s.block_size_bytes:
        reason = f"the memory limit must hold at least {_MIN_BLOCKS} blocks"
        found.append((("memory_limit_bytes", "block_size_bytes"), reason))
    return found


def _addressing(s: SettingFields) -> list[Conflict]:
    hostname = (urlsplit(s.endpoint).hostname or "") if s.endpoint else ""
    if s.addressing == "path" and hostname.endswith(_OSS_DOMAIN):
        return [(("addressing", "endpoint"), "OSS supports only virtual addressing")]
    if s.addressing == "virtual" and _is_ip_address(hostname):
        return [
            (("addressing", "endpoint"), "virtual addressing needs a host name, not an IP address")
        ]
    return []


def _is_ip_address(hostname: str) -> bool:
    try:
        ip_address(hostname)
    except ValueError:
        return False
    return True


def _encryption(s: SettingFields) -> list[Conflict]:
    found: list[Conflict] = []
    if s.sse_key_file is not None and s.sse is not None:
        found.append((("sse", "sse_key_file"), "an object can be encrypted in one way only"))
    if s.sse_kms_key_id is not None and s.sse not in ("aws:kms", "aws:kms:dsse"):
        found.append((("sse_kms_key_id",), "it is for --sse aws:kms, which is not given"))
    for name in ("endpoint", "read_endpoint"):
        url = urlsplit(getattr(s, name) or "")
        is_open = url.scheme == "http" and not _is_this_machine(url.hostname)
        if s.sse_key_file is not None and is_open:
            reason = "the key would cross the network for everybody to read: use https"
            found.append((("sse_key_file", name), reason))
    return found


def _is_this_machine(hostname: str | None) -> bool:
    if hostname is None or not _is_ip_address(hostname):
        return hostname == "localhost"
    return ip_address(hostname).is_loopback


def _shared_cache(s: SettingFields) -> list[Conflict]:
    if s.shared_cache_secret is not None and s.shared_cache is None:
        return [(("shared_cache_secret",), "it is for --shared-cache, which is not given")]
    if s.shared_cache is not None and s.sse_key_file is not None:
        reason = "the nodes would hold decrypted bytes that others can read"
        return [(("shared_cache", "sse_key_file"), reason)]
    return []


def _trash(s: SettingFields) -> list[Conflict]:
    if not s.trash:
        return []
    if s.prefix.startswith(s.trash):
        return [(("trash",), "the mounted prefix is the trash, or is inside it")]
    if s.trash.startswith(s.prefix) and not s.trash[len(s.prefix) :].startswith(".ossfs-py-"):
        reason = (
            "it is inside the mounted prefix, where programs would see and delete the copies: give"
            " no prefix, or one that is not mounted"
        )
        return [(("trash",), reason)]
    return []


def _directories_apart(s: SettingFields) -> list[Conflict]:
    # The daemon would wait for itself when it opens its own files through the mount.
    inside = [
        name
        for name in ("temp_dir", "cache_dir", "state_dir", "log_file", "access_log")
        if (path := getattr(s, name)) is not None and path.is_relative_to(s.mountpoint)
    ]
    return [((name, "mountpoint"), "it must be outside the mountpoint") for name in inside]


def _special_modes(s: SettingFields) -> list[Conflict]:
    if s.special_modes and os.geteuid() != 0:
        return [(("special_modes",), "only root may use it")]
    return []


def _restarts(s: SettingFields) -> list[Conflict]:
    found: list[Conflict] = []
    if s.outlives_daemon and s.fuse_lane == "off":
        named = "restarts" if s.restarts else "keeper"
        found.append(((named, "fuse_lane"), "it needs the fast lane"))
    return found


CONFLICT_RULES: tuple[Callable[[SettingFields], list[Conflict]], ...] = (
    _several_credentials,
    _block_size,
    _addressing,
    _encryption,
    _shared_cache,
    _trash,
    _directories_apart,
    _special_modes,
    _restarts,
)
