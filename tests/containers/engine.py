"""podman with directories of its own: nothing of the machine's images or containers is touched."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.commands import plain_environment

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:12-slim"
IMAGE = "registry.example.com/ossfs-py:0.1.0"
"""As the manifests call it: nothing is pulled, it is there."""
FUSE = (10, 229)
"""Major and minor number of /dev/fuse (Documentation/admin-guide/devices.txt)."""
_BUILD_SECONDS = 580.0
_HEALTHY_SECONDS = 120.0
_NEEDED = ("podman", "runc", "debootstrap")
# As in Debian's own image, which has a PATH as well.
_UNUSED = (
    *("var/cache/apt", "var/lib/apt/lists"),
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"),
)
_PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NoEngineError(Exception):
    """No container can be run here; the text says why."""


class Engine:
    """Builds images and runs containers below ``kept``, which outlives the tests."""

    def __init__(self, kept: Path) -> None:
        if os.geteuid() != 0:
            raise NoEngineError("the tests of the image are root's")
        for program in _NEEDED:
            if shutil.which(program) is None:
                raise NoEngineError(f"{program} is not installed")
        self._kept = kept
        kept.mkdir(parents=True, exist_ok=True)
        self._conf = kept / "containers.conf"
        # More than a process may have that lacks CAP_SYS_RESOURCE is what podman asks for.
        self._conf.write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        )

    def run(
        self,
        *words: str | Path,
        timeout: float = 300.0,
        check: bool = True,
        with_errors: bool = False,
    ) -> str:
        """One podman command: what it says on standard output, or on both outputs."""
        done = subprocess.run(
            [
                "podman",
                *("--root", self._kept / "root", "--runroot", self._kept / "run"),
                *("--storage-driver", "overlay", "--events-backend", "file"),
                *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
                *words,
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**plain_environment({}), "CONTAINERS_CONF": str(self._conf)},
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr)[-4000:]
            raise AssertionError(f"podman {' '.join(map(str, words))}\n{said}")
        return done.stdout + done.stderr if with_errors else done.stdout

    @contextlib.contextmanager
    def to_ourselves(self) -> Iterator[Path]:
        """No other process of the tests builds meanwhile. Yields a file that tells for whom the
        image was built last."""
        path = self._kept / "built"
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield path

    def make_base(self) -> None:
        """Make the base image, unless it is kept from another time."""
        if not self.run("images", "--quiet", BASE):
            with _scratch(self._kept / "base") as directory:
                command = [
                    "debootstrap",
                    "--variant=minbase",
                    "bookworm",
                    str(directory),
                    _mirror(),
                ]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
                for name in _UNUSED:
                    shutil.rmtree(directory / name, ignore_errors=True)
                    (directory / name).mkdir()
                packed = subprocess.Popen(
                    ["tar", "-C", str(directory), "-cf", str(self._kept / "base.tar"), "."]
                )
                assert packed.wait(300) == 0
                self.run("import", "--change", _PATH, self._kept / "base.tar", BASE)
                (self._kept / "base.tar").unlink()
        try:
            self.run("run", "--rm", "--network", "host", BASE, "true")
        except AssertionError as exc:
            raise NoEngineError(f"podman cannot run a container: {exc}") from None

    def build(self) -> None:
        """Build the image with the certificates that this machine trusts."""
        with _scratch(self._kept / "machine") as machine:
            words: list[str] = []
            bundle = Path("/etc/ssl/certs/ca-certificates.crt")
            if bundle.exists():
                shutil.copy(bundle, machine / "ca.pem")
                (machine / "pip.conf").write_text("[global]\ncert = /machine/ca.pem\n")
                words += ["--volume", f"{machine}:/machine:ro"]
                words += ["--build-arg", "PIP_CONFIG_FILE=/machine/pip.conf"]
            self.run(
                *("build", "--format", "docker", "--layers", "--network", "host", *words),
                *("--file", ROOT / "docker/Dockerfile", "--tag", IMAGE, ROOT),
                timeout=_BUILD_SECONDS,
            )

    @contextlib.contextmanager
    def container(
        self, options: Sequence[str], *command: str, environment: Mapping[str, str]
    ) -> Iterator["Container"]:
        """A container that runs; killed and removed at the end."""
        variables = [word for item in environment.items() for word in ("--env", "=".join(item))]
        words = ["run", "--detach", "--network", "host", *options, *variables, IMAGE, *command]
        container = Container(self, self.run(*words).split()[-1])
        try:
            yield container
        finally:
            self.run("rm", "--force", "--time", "0", container.name, check=False)


class Container:
    """One that was started."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    def wait_healthy(self) -> float:
        """Until the image's health check is content; how long that took."""
        began = time.monotonic()
        while said := self.health():
            assert self.is_running, self.logs()
            assert time.monotonic() - began < _HEALTHY_SECONDS, said + self.logs()
        return time.monotonic() - began

    def health(self) -> str:
        """What the health check of the image says now; nothing where it is content."""
        return self._engine.run(
            "healthcheck", "run", self.name, check=False, with_errors=True
        ).strip()

    def exec(self, *command: str, check: bool = True) -> str:
        """A program in the container."""
        return self._engine.run("exec", self.name, *command, check=check)

    def signal(self, number: str) -> None:
        self._engine.run("kill", "--signal", number, self.name)

    def kill_at_once(self) -> None:
        """SIGKILL to its process 1 and so to all, past the engine; returns when they are gone."""
        pid = json.loads(self._engine.run("inspect", self.name))[0]["State"]["Pid"]
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended = select.poll()
            ended.register(process, select.POLLIN)
            assert ended.poll(_HEALTHY_SECONDS * 1000), "it lives on"
        finally:
            os.close(process)

    def stop(self, seconds: int = 120) -> int:
        """As "docker stop"; the exit code."""
        self._engine.run("stop", "--time", str(seconds), self.name)
        return self.exit_code()

    def start(self) -> None:
        """Again, after an end."""
        self._engine.run("start", self.name)

    def exit_code(self) -> int:
        """Waits for the end."""
        return int(self._engine.run("wait", self.name).split()[-1])

    @property
    def is_running(self) -> bool:
        told = json.loads(self._engine.run("inspect", self.name))
        return bool(told[0]["State"]["Running"])

    def logs(self) -> str:
        return self._engine.run("logs", self.name, with_errors=True)


@contextlib.contextmanager
def shared_directory(path: Path) -> Iterator[Path]:
    """A directory whose mounts are seen in every namespace that has it, as systemd's are."""
    path.mkdir()
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "--make-rshared", path], check=True)
        yield path
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", path], check=False)


def fuse_node(path: Path) -> Path:
    """A device file like /dev/fuse that every user may open."""
    os.mknod(path, 0o020666, os.makedev(*FUSE))
    path.chmod(0o666)
    return path


def _mirror() -> str:
    """Where this machine's apt gets Debian from."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        uri, _, codename = line.partition(" ")
        if codename == "bookworm":
            return uri
    raise NoEngineError("apt knows no mirror of Debian 12")


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
