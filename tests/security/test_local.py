"""What a mount leaves on this machine is for its owner alone, and tells nobody a secret."""

import json
import os
import ssl
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ossfs_py.control.client import ControlClient, mount_of
from ossfs_py.host.running import SOCKET_NAME, find_daemon
from tests.conftest import MountFactory
from tests.support.commands import as_ordinary_user, open_fuse_device, ordinary_user, ossfs
from tests.support.faults import Fault
from tests.support.mount_command import Place, daemons_of, hand_over
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.scripted_server import ScriptedServer, error
from tests.support.seaweed import SeaweedServer

OTHERS = stat.S_IRWXG | stat.S_IRWXO
STRANGER, OTHER_STRANGER = 65534, 65533


def loose(*roots: Path) -> Iterator[str]:
    """Files and directories that anybody but their owner may do anything with."""
    for root in roots:
        for path in (root, *root.rglob("*")):
            mode = path.lstat().st_mode
            if mode & OTHERS and not stat.S_ISLNK(mode):
                yield f"{path} {stat.S_IMODE(mode):04o}"


def use(mounted: Mount) -> int:
    """Make the daemon need all its directories; returns a descriptor with unsaved bytes."""
    # What was just written is read from where it was written, unless it is longer than 16 MiB.
    (mounted.path / "read").write_bytes(os.urandom(20_000_000))
    assert len((mounted.path / "read").read_bytes()) == 20_000_000
    fd = os.open(mounted.path / "written", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"out of order", 5_000_000)
    os.pwrite(fd, b"first", 0)
    return fd


def test_every_local_file_is_for_its_owner_only(
    mount: MountFactory, bucket: str, data_path: str, tmp_path: Path
) -> None:
    log_file = tmp_path / "the.log"
    umask = os.umask(0)
    try:
        mounted = mount(bucket, data_path=data_path, log_file=log_file)
    finally:
        os.umask(umask)
    fd = use(mounted)
    try:
        daemon = find_daemon(mounted.path)
        assert daemon is not None
        runtime = daemon.runtime_dir
        daemon.close()
        assert stat.S_ISSOCK((runtime / SOCKET_NAME).lstat().st_mode)
        assert not list(loose(runtime, mounted.state_dir, mounted.cache_dir, mounted.temp_dir))
        assert not list(loose(log_file))
    finally:
        os.close(fd)


def test_temporary_files_have_no_name_that_others_could_reach(
    mount: MountFactory, bucket: str, tmp_path: Path
) -> None:
    """The directory for them is often one that everybody writes to."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    mounted = mount(bucket, data_path="temp", temp_dir=shared)
    fd = use(mounted)
    try:
        assert list(shared.iterdir()) == []
        assert any(name.startswith(str(shared)) for name in mounted.open_files())
    finally:
        os.close(fd)


def test_a_link_that_somebody_else_put_in_the_way_is_not_followed(
    tmp_path: Path, bucket: str, seaweed: SeaweedServer
) -> None:
    """In a directory that everybody writes to, a link may lead into the victim's own home."""
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir(mode=0o700)
    shared.mkdir()
    trap = shared / "state"
    trap.symlink_to(home)
    os.lchown(trap, 65534, 65534)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    for option in ("state-dir", "cache-dir"):
        outcome = ossfs(
            *("mount", bucket, mountpoint, "--endpoint", seaweed.endpoint, "--data-path=cache"),
            *("--state-dir", tmp_path / "state", "--cache-dir", tmp_path / "cache"),
            *(f"--{option}", trap),
            environment=seaweed.environment,
        )
        assert outcome.code == 1
        assert "another user" in outcome.sentence
    assert list(home.iterdir()) == []


def test_a_hard_link_does_not_make_a_foreign_file_the_mounts(
    mount: MountFactory, bucket: str, tmp_path: Path
) -> None:
    """Whoever can link into a directory could have the daemon write to a file of the owner's."""
    mounted = mount(bucket, data_path="temp")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    mounted.unmount()
    for directory in (mounted.temp_dir, mounted.state_dir):
        for found in [path for path in directory.rglob("*") if path.is_dir()]:
            (found / "linked.data").hardlink_to(victim)
    mounted.start()
    os.close(use(mounted))
    mounted.unmount()
    assert victim.read_text() == "mine"


def test_secrets_are_told_nowhere(
    proxy: Proxy, mount: MountFactory, bucket: str, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    """Not in the log at its most talkative, not in figures, arguments, answers or error texts."""
    mounted = mount(
        bucket,
        endpoint=proxy.endpoint,
        log_level="debug",
        retry_budget="0.3s",
        metadata_ttl="0s",
        executed=True,
    )
    proxy.faults = [
        Fault("PutObject", status=403, code="SignatureDoesNotMatch"),
        Fault("GetObject", body=b"<html>", times=3),
        Fault("ListObjects", status=400, code="ExpiredToken", skip=1),
        Fault("HeadObject", garbage=True, skip=2, times=4),
    ]
    for number in range(4):
        path = mounted.path / f"file-{number}"
        for call in (lambda: path.write_bytes(b"x" * 100), path.read_bytes, path.unlink):  # noqa: B023
            try:
                call()
            except OSError as exc:
                assert seaweed.secret_key not in str(exc)
    with ControlClient.of(mount_of(mounted.path)[0]) as client:
        stats = json.dumps(client.call("stats"))
    doctor = ossfs("doctor", mounted.path, environment=seaweed.environment)
    wrong = ossfs(
        *("mount", bucket, tmp_path, "--endpoint", seaweed.endpoint, "--nonempty"),
        environment={**seaweed.environment, "AWS_ACCESS_KEY_ID": "nobody"},
    )
    process = Path(f"/proc/{mounted.pid}")
    told = {
        "log": mounted.log,
        "stats": stats,
        "arguments": (process / "cmdline").read_text(),
        "doctor": doctor.out + doctor.err,
        "refusal": wrong.out + wrong.err,
        "state": "".join(
            path.read_text(errors="replace")
            for path in mounted.state_dir.rglob("*")
            if path.is_file()
        ),
    }
    assert wrong.code == 1
    for place, text in told.items():
        assert seaweed.secret_key not in text, place
        assert "Signature=" not in text, place


def test_the_daemon_leaves_no_core_file_with_keys_in_it(mount: MountFactory, bucket: str) -> None:
    mounted = mount(bucket, executed=True)
    limits = Path(f"/proc/{mounted.pid}/limits").read_text().splitlines()
    (core,) = [line for line in limits if line.startswith("Max core file size")]
    assert core.split()[4] == "0"


def test_no_program_that_takes_core_files_is_given_the_daemon_s_memory(
    seaweed: SeaweedServer, bucket: str
) -> None:
    """A core_pattern with a pipe heeds no limit, only whether the process may be dumped: what
    belongs to it in /proc is root's then (proc(5)).
    """
    wrapper = as_ordinary_user() if os.geteuid() == 0 else []
    with open_fuse_device(), tempfile.TemporaryDirectory() as root:
        place = Place(Path(root), seaweed.endpoint, bucket, seaweed.environment)
        hand_over(place)
        outcome = place.mount(wrapper=wrapper)
        assert outcome.code == 0, outcome.err
        (daemon,) = daemons_of(place.mountpoint)
        status = Path("/proc", daemon, "status").read_text().splitlines()
        (uids,) = [line.split()[1:] for line in status if line.startswith("Uid:")]
        assert int(uids[0]) == ordinary_user()[0] != 0
        assert Path("/proc", daemon, "environ").stat().st_uid == 0
        outcome = ossfs("umount", place.mountpoint, environment={}, wrapper=wrapper)
        assert outcome.code == 0, outcome.err


def test_tls_is_verified_unless_that_is_switched_off(tmp_path: Path, bucket: str) -> None:
    """A certificate that nobody vouches for ends the mount before anything is sent."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=store", "-keyout", key, "-out", certificate),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    denied = [error(403, "AccessDenied")]
    with ScriptedServer([[denied], [denied]], tls=context) as server:
        arguments = ["mount", bucket, mountpoint, "--endpoint", server.url]
        arguments += ["--state-dir", tmp_path / "state", "--region=us-east-1"]
        environment = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret-key-1"}
        outcome = ossfs(*arguments, environment=environment)
        assert outcome.code == 1
        assert "self-signed certificate" in outcome.sentence
        assert not server.requests
        outcome = ossfs(*arguments, "--no-verify-tls", environment=environment)
        assert "denied" in outcome.sentence
        assert len(server.requests) == 1


def test_another_user_cannot_command_a_mount(mount: MountFactory, bucket: str) -> None:
    mounted = mount(bucket)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    wrapper = [*root, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    capability = "+dac_read_search"  # the checkout may lie below /root
    wrapper += ["--inh-caps", capability, "--ambient-caps", capability, "--"]
    outcome = ossfs("refresh", mounted.path, wrapper=wrapper, environment={})
    assert outcome.code == 1
    assert "only the owner of the mount" in outcome.sentence


def own_keys(
    work: Path, server: SeaweedServer, owner: int
) -> list[tuple[list[str], dict[str, str]]]:
    """A password file and a shared credentials file of ``owner``, each as it is named."""
    passwords, shared = work / "passwd", work / "credentials"
    key, secret = server.access_key, server.secret_key
    passwords.write_text(f"{key}:{secret}\n")
    shared.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*root, "chmod", "600", passwords, shared], check=True)
    subprocess.run([*root, "chown", str(owner), passwords, shared], check=True)
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(shared), "AWS_CONFIG_FILE": os.devnull}
    return [(["--credentials-file", str(passwords)], {}), ([], environment)]


def test_keys_from_a_file_of_somebody_else_mount_nothing(
    seaweed: SeaweedServer, bucket: str, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    for arguments, environment in own_keys(tmp_path, seaweed, STRANGER):
        outcome = ossfs(
            *("mount", bucket, mountpoint, "--endpoint", seaweed.endpoint, "--region=us-east-1"),
            *("--state-dir", tmp_path / "state", "--temp-dir", tmp_path, *arguments),
            environment=environment,
        )
        if outcome.code == 0:
            subprocess.run(["fusermount3", "-u", mountpoint], check=True)
        assert outcome.code == 1
        assert "belongs to another user" in outcome.sentence
        assert seaweed.secret_key not in outcome.err


@pytest.mark.parametrize("owner", [STRANGER, OTHER_STRANGER])
def test_an_ordinary_user_s_own_keys_are_taken_and_nobody_else_s(
    seaweed: SeaweedServer, bucket: str, tmp_path: Path, owner: int
) -> None:
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    capability = "+dac_read_search"  # the checkout may lie below /root
    user = ["--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups"]
    wrapper = [
        *root,
        "setpriv",
        *user,
        "--inh-caps",
        capability,
        "--ambient-caps",
        capability,
        "--",
    ]
    for arguments, environment in own_keys(tmp_path, seaweed, owner):
        outcome = ossfs(
            *("doctor", bucket, "--endpoint", seaweed.endpoint, "--region=us-east-1", *arguments),
            environment=environment,
            wrapper=wrapper,
        )
        assert ("belongs to another user" in outcome.out) == (owner != STRANGER), outcome.out
        assert ("from the " in outcome.out) == (owner == STRANGER), outcome.out
