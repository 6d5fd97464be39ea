"""The nodes of a shared cache: whether they answer, what they take and how full they are."""

from collections.abc import Iterator

from ossfs_py.doctor.findings import Finding, failed, good, warning
from ossfs_py.sharedcache.blocks import BLOCK_BYTES, HEAD_BYTES, ITEM_OVERHEAD_BYTES
from ossfs_py.sharedcache.connection import NodeFaultError, connect_node
from ossfs_py.sharedcache.members import (
    Member,
    MembersUnknownError,
    find_members,
    is_this_machine_only,
)

_CHECK = "shared cache"
_PATIENCE_SECONDS = 2.0
_OLDEST = (1, 6)
"""The first memcached with meta commands that lease."""
_MIB = 1024**2


def check_shared_cache(described: str) -> Iterator[Finding]:
    """Look at each node of what ``--shared-cache`` says."""
    try:
        members = find_members(described)
    except MembersUnknownError as exc:
        yield failed(_CHECK, str(exc), "correct --shared-cache; mounts go on without it")
        return
    if not members:
        yield warning(_CHECK, "no node is named", "name the nodes in --shared-cache")
    if is_this_machine_only(described, members):
        yield warning(
            _CHECK,
            f"{described} is only this machine, so no other machine shares the cache",
            "give the name the addresses of all nodes",
        )
    for member in members:
        yield _check_node(member)


def _check_node(member: Member) -> Finding:
    try:
        connection = connect_node(member.address, _PATIENCE_SECONDS)
        try:
            settings, stats = connection.settings(), connection.settings(b"")
        finally:
            connection.close()
        item_bytes, limit_bytes = int(settings["item_size_max"]), int(stats["limit_maxbytes"])
        used_bytes, evictions = int(stats["bytes"]), int(stats["evictions"])
        version = tuple(int(part) for part in stats["version"].split(".")[:2])
    except NodeFaultError as exc:
        fix = "start memcached there, and let this machine reach its port"
        return failed(_CHECK, f"{member.name}: {exc}", fix)
    except (KeyError, ValueError):
        return failed(
            _CHECK, f"{member.name}: the server there is not memcached", "name memcached's port"
        )
    told = (
        f"{member.name}: memcached {stats['version']}, {used_bytes // _MIB} of "
        f"{limit_bytes // _MIB} MiB used, {evictions} evictions, items up to {item_bytes} bytes"
    )
    if version < _OLDEST:
        return failed(_CHECK, told, "install memcached 1.6 or newer, which has leases")
    if item_bytes < BLOCK_BYTES + HEAD_BYTES + ITEM_OVERHEAD_BYTES:
        return warning(_CHECK, told, "start it with -I 4m: blocks of 1 MiB are cut for it now")
    if evictions:
        return warning(_CHECK, told, "not all blocks fit: give it more memory (-m), or add nodes")
    return good(_CHECK, told)
