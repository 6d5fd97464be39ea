"""What is compared: each entry mounts the benchmark's bucket its own way."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import lockmeter
from tests.bench.content import BUCKET
from tests.support.mounting import DATA_PATHS, is_mounted
from tests.support.stores import Store

START_SECONDS = 30.0
END_SECONDS = 120.0
BUSY_SECONDS = 5.0
"""For a daemon whose mount is still used by a run that took too long: it has nothing to upload."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Launch:
    """A command that serves a mount in the foreground, and what it needs around it."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    lock_seen: Path | None = None
    """Where the meter in it tells how long it held the interpreter's lock."""


@dataclass(frozen=True)
class Peer:
    """One mount program."""

    name: str
    launch: Callable[[Store, Path, Path], Launch]
    """From store, mountpoint and scratch directory."""


@dataclass
class Served:
    """A running mount."""

    path: Path
    process: subprocess.Popen[bytes]
    lock_seen: Path | None = None
    """What the meter of the interpreter's lock adds up in; None where none is in the daemon."""

    def lock(self) -> lockmeter.Seen | None:
        """What the meter of the interpreter's lock has seen so far; None if there is none."""
        return lockmeter.seen(self.lock_seen) if self.lock_seen is not None else None

    def cpu_seconds(self) -> float:
        """User and system time of the daemon so far, its ended children included."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in stat[11:15]) / CLOCK_TICKS

    def peak_rss_bytes(self) -> int:
        """Largest resident memory of the daemon so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0


def ours(data_path: str, options: Sequence[str] = ()) -> Peer:
    """ossfs-py over one data path, with its defaults but for ``options``."""

    def launch(store: Store, mountpoint: Path, scratch: Path) -> Launch:
        meter = lockmeter.build(scratch)
        seen = scratch / "lock" if meter is not None else None
        program = [sys.executable, "-m", "ossfs_py"]
        if meter is not None and seen is not None:
            program = lockmeter.command(meter, seen)
        command = [
            *(*program, "mount", BUCKET, str(mountpoint), "--foreground"),
            *("--endpoint", store.endpoint, "--data-path", data_path, *options),
        ]
        for option in ("temp-dir", "state-dir", "cache-dir"):
            (scratch / option).mkdir(mode=0o700)
            if option != "cache-dir" or data_path == "cache":
                command += [f"--{option}", str(scratch / option)]
        return Launch(command, _aws(store), seen)

    return Peer(f"ours {data_path}", launch)


def _s3fs(store: Store, mountpoint: Path, scratch: Path) -> Launch:
    password = scratch / "password"
    password.touch(0o600)
    password.write_text(f"{store.access_key}:{store.secret_key}\n")
    options = f"url={store.endpoint},use_path_request_style,passwd_file={password}"
    return Launch(["s3fs", BUCKET, str(mountpoint), "-f", "-o", options])


def _rclone(store: Store, mountpoint: Path, scratch: Path) -> Launch:
    beside = Path(sys.executable).with_name("rclone")
    command = [
        *(str(beside) if beside.exists() else "rclone", "mount", f":s3:{BUCKET}", str(mountpoint)),
        # Without a cache rclone cannot write files that are seeked or fsynced.
        *("--vfs-cache-mode", "writes", "--cache-dir", str(scratch / "cache")),
        *("--config", str(scratch / "none"), "--log-level", "ERROR"),
    ]
    return Launch(
        command,
        {
            "RCLONE_S3_PROVIDER": "Other",
            "RCLONE_S3_ENDPOINT": store.endpoint,
            "RCLONE_S3_ACCESS_KEY_ID": store.access_key,
            "RCLONE_S3_SECRET_ACCESS_KEY": store.secret_key,
        },
    )


def _written(command: str, keys: str = "") -> Callable[[Store, Path, Path], Launch]:
    """A peer whose whole launch is a command line, with names in braces: ``{store}`` the endpoint,
    ``{host}`` the same with a name whose subdomains are buckets, ``{at}`` the mountpoint,
    ``{scratch}`` a directory, ``{keys}`` a file of ``keys``. A shell reads it."""

    def launch(store: Store, mountpoint: Path, scratch: Path) -> Launch:
        file = scratch / "keys"
        file.touch(0o600)
        names = {
            "store": store.endpoint,
            "host": store.endpoint.replace("127.0.0.1", "localhost"),
            "bucket": BUCKET,
            "at": str(mountpoint),
            "scratch": str(scratch),
            "keys": str(file),
            "access": store.access_key,
            "secret": store.secret_key,
        }
        file.write_text(keys.format(**names))
        quoted = {name: shlex.quote(value) for name, value in names.items()}
        return Launch(["sh", "-c", command.format(**quoted)], _aws(store))

    return launch


OTHERS = {
    "mount-s3": _written(
        "exec mount-s3 {bucket} {at} --foreground --endpoint-url {store} --force-path-style"
        " --region us-east-1 --upload-checksums off --allow-delete --allow-overwrite"
    ),
    "geesefs": _written("exec geesefs -f --endpoint {store} --region us-east-1 {bucket} {at}"),
    "goofys": _written("exec goofys -f --endpoint {store} --region us-east-1 {bucket} {at}"),
    "ossfs": _written(
        "exec ossfs {bucket} {at} -f -ourl={host} -opasswd_file={keys}",
        "{bucket}:{access}:{secret}\n",
    ),
    "ossfs2": _written(
        "exec ossfs2 mount {at} -f -c {keys}",
        "--oss_endpoint={host}\n--oss_bucket={bucket}\n--oss_access_key_id={access}\n"
        "--oss_access_key_secret={secret}\n",
    ),
    # Its objects are of its own format: it has to be given what it is to read.
    "juicefs": _written(
        "juicefs format --storage s3 --bucket {store}/{bucket} --access-key {access}"
        " --secret-key {secret} sqlite3://{scratch}/meta.db bench"
        " && exec juicefs mount --cache-dir {scratch} sqlite3://{scratch}/meta.db {at}"
    ),
}
"""Peers that take part where their program is on PATH, by its name."""

PEERS = (
    *(ours(data_path) for data_path in reversed(DATA_PATHS)),
    Peer("s3fs", _s3fs),
    Peer("rclone", _rclone),
    *(Peer(name, launch) for name, launch in OTHERS.items() if shutil.which(name)),
)


@contextlib.contextmanager
def served(peer: Peer, store: Store, scratch: Path) -> Iterator[Served]:
    """A fresh mount, gone afterwards with everything it wrote to local disk."""
    mountpoint, log = scratch / "mnt", scratch / "log"
    mountpoint.mkdir(parents=True)
    launch = peer.launch(store, mountpoint, scratch)
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *launch.command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **launch.environment},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_mounted(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{peer.name} did not mount: {log.read_text()[-500:]}")
            time.sleep(0.02)
        yield Served(mountpoint, process, launch.lock_seen)
    finally:
        lazily = ["fusermount3", "-u", "-z", str(mountpoint)]
        kindly = ["fusermount3", "-u", str(mountpoint)]
        busy = subprocess.run(kindly, check=False, capture_output=True).returncode
        if busy:
            subprocess.run(lazily, check=False, capture_output=True)
        try:
            process.wait(BUSY_SECONDS if busy else END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        subprocess.run(lazily, check=False, capture_output=True)


def _aws(store: Store) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
