"""OpenStack Swift with its S3 middleware: one node, one replica."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.launching import (
    Running,
    ServerMissingError,
    environment_with,
    free_ports,
    listening,
    output_of,
    program,
    wait_until,
)

PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk tempurl s3api "
    "tempauth copy slo dlo versioned_writes symlink proxy-logging proxy-server"
)
FILTERS = (
    *("catch_errors", "gatekeeper", "healthcheck", "proxy_logging", "listing_formats", "bulk"),
    *("tempurl", "copy", "slo", "dlo", "symlink"),
)
BACKEND = """\
[DEFAULT]
devices = {home}/dev
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
bind_ip = 127.0.0.1
bind_port = {port}
workers = 1
user = root
swift_dir = {home}/etc
recon_cache_path = {home}/cache
log_level = WARNING
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 2
user = root
swift_dir = {home}/etc
log_level = WARNING
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing0000 .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
allow_multipart_uploads = true
check_bucket_owner = false
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
"""


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A cluster of one with its data below ``home``."""
    if shutil.which("memcached") is None:
        raise ServerMissingError(
            "memcached is not installed: apt-get install memcached liberasurecode-dev"
        )
    binaries = environment_with("swift", "swift", "setuptools<81")
    ports = dict(
        zip(("account", "container", "object", "proxy", "mem"), free_ports(5), strict=True)
    )
    etc = home / "etc"
    for path in (etc, home / "dev/d1", home / "cache"):
        path.mkdir(parents=True)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    backends = ("account", "container", "object")
    for kind in backends:
        ring = (binaries / "swift-ring-builder", f"{kind}.builder")
        output_of(*ring, "create", "4", "1", "0", cwd=etc)
        output_of(*ring, "add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1", cwd=etc)
        output_of(*ring, "rebalance", cwd=etc)
        text = BACKEND.format(home=home, port=ports[kind], kind=kind)
        (etc / f"{kind}-server.conf").write_text(text)
    plain = "".join(
        f"[filter:{name.replace('proxy_', 'proxy-')}]\nuse = egg:swift#{name}\n" for name in FILTERS
    )
    (etc / "proxy-server.conf").write_text(
        PROXY.format(home=home, port=ports["proxy"], memcached=ports["mem"], pipeline=PIPELINE)
        + plain
    )
    environment = {"SWIFT_DIR": str(etc)}
    with contextlib.ExitStack() as stack:
        memcached = ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(ports["mem"])]
        running = {"mem": stack.enter_context(program(memcached, home / "mem.log"))}
        for kind in (*backends, "proxy"):
            command = [binaries / f"swift-{kind}-server", etc / f"{kind}-server.conf"]
            log = home / f"{kind}.log"
            running[kind] = stack.enter_context(program(command, log, environment))
        for kind, process in running.items():
            log, port = home / f"{kind}.log", ports[kind]
            wait_until(lambda port=port: listening(port), kind, log, process)
        version = output_of(
            binaries / "python", "-c", "import importlib.metadata as m; print(m.version('swift'))"
        )
        yield Running(
            f"http://127.0.0.1:{ports['proxy']}",
            f"Swift {version} (s3api)",
            access_key="test:tester",
            secret_key="testing0000",
        )
