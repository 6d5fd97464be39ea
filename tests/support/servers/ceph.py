"""Ceph's RADOS gateway with one monitor and one OSD: Debian's packages.

No manager: nothing here needs its statistics, and it would bring 35 more packages. One placement
group a pool and one shard a log: a start then takes 7 s instead of 19.
"""

import contextlib
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.servers.launching import (
    ACCESS_KEY,
    SECRET_KEY,
    Running,
    ServerMissingError,
    free_ports,
    listening,
    output_of,
    program,
    wait_until,
)

PACKAGES = "radosgw ceph-mon ceph-osd ceph-common"
DISK_BYTES = 20 * 1024**3
"""The OSD's file is sparse: it takes what the tests store."""
CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow *", "osd": "allow *"},
    "client.rgw.a": {"mon": "allow *", "osd": "allow *"},
}
CONFIGURATION = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public network = 127.0.0.0/8
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
paxos propose interval = 0.05
run dir = {home}/run
log to file = false
log to stderr = true
err to stderr = true
admin socket = {home}/run/$name.asok
pid file = {home}/run/$name.pid
keyring = {home}/keyring
crash dir = {home}/log
[mon.a]
mon data = {home}/mon
[osd.0]
osd data = {home}/osd
osd objectstore = bluestore
bluestore block size = {disk_bytes}
bluestore block create = true
osd memory target = 1073741824
bluestore cache autotune = false
bluestore cache size = 268435456
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {home}/rgw
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = tests-key=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
rgw enable lc threads = false
rgw enable gc threads = false
rgw data log num shards = 1
rgw md log max shards = 1
rgw usage max shards = 1
rgw reshard num logs = 1
rgw lc max objs = 1
rgw gc max objs = 1
rgw objexp hints num shards = 1
"""


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A cluster with its data below ``home``."""
    if missing := [name for name in ("radosgw", "ceph-mon", "ceph-osd") if not shutil.which(name)]:
        raise ServerMissingError(f"{missing[0]} is not installed: apt-get install {PACKAGES}")
    port, v1, v2 = free_ports(3)
    for name in ("mon", "osd", "rgw", "run", "log"):
        (home / name).mkdir()
    conf, keyring, monmap = home / "ceph.conf", home / "keyring", home / "monmap"
    fsid = uuid.uuid4()
    conf.write_text(
        CONFIGURATION.format(fsid=fsid, v1=v1, v2=v2, home=home, port=port, disk_bytes=DISK_BYTES)
    )
    output_of("ceph-authtool", "--create-keyring", keyring)
    for name, caps in CAPABILITIES.items():
        words = [word for cap in caps.items() for word in ("--cap", *cap)]
        output_of("ceph-authtool", keyring, "--gen-key", "-n", name, *words)
    addresses = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
    output_of(
        *("monmaptool", "--create", "--clobber", "--fsid", str(fsid)),
        *("--addv", "a", addresses, monmap),
    )
    made = ("--monmap", monmap, "--keyring", keyring)
    output_of("ceph-mon", "-c", conf, "--mkfs", "-i", "a", *made)
    with contextlib.ExitStack() as stack:

        def begin(*command: str | Path, answers: Callable[[], bool]) -> None:
            # Nobody needs its data afterwards; ending in good order would take ten seconds.
            log = home / f"{command[0]}.out"
            words = [command[0], "-c", conf, "-f", *command[1:]]
            running = stack.enter_context(program(words, log, end_with=signal.SIGKILL))
            wait_until(answers, str(command[0]), log, running)

        ceph = ("ceph", "-c", conf, "--connect-timeout", "5")
        begin("ceph-mon", "-i", "a", answers=lambda: answered(*ceph, "-s"))
        osd = str(uuid.uuid4())
        output_of(*ceph, "osd", "new", osd)
        output_of("ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        output_of(*ceph, "osd", "crush", "add", "osd.0", "1.0", "host=localhost", "root=default")
        begin("ceph-osd", "-i", "0", answers=lambda: "1 up" in output_of(*ceph, "osd", "stat"))
        begin("radosgw", "-n", "client.rgw.a", answers=lambda: listening(port))
        output_of(
            *("radosgw-admin", "-c", conf, "user", "create", "--uid=test", "--display-name=Test"),
            *(f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}", "--max-buckets=0"),
        )
        version = output_of("radosgw", "--version").split()[2]
        yield Running(f"http://127.0.0.1:{port}", f"Ceph RGW {version}")


def answered(*command: str | Path) -> bool:
    """Whether the cluster does what it is told."""
    try:
        output_of(*command)
    except ServerMissingError:
        return False
    return True
