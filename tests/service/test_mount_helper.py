"""mount(8), fstab and umount(8) with the installed helpers, in a booted machine."""

import json
from collections.abc import Iterator

import pytest
from minio import Minio

from tests.conftest import make_bucket
from tests.service.booted import Booted, stored, wait_until
from tests.support.faults import Fault
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MOUNTPOINT = "/run/fstab"
PASSWD = "/etc/ossfs-py/passwd"
# All of mount(8)'s own words, which no daemon knows.
WORDS_OF_MOUNT = "_netdev,nofail,noauto,user,exec,suid,dev,x-systemd.device-timeout=5,comment=hello"


class Fstab:
    """A machine whose fstab has one line of ours."""

    def __init__(self, machine: Booted, bucket: str, endpoint: str) -> None:
        self.machine = machine
        self.bucket = bucket
        self.options = f"endpoint={endpoint},credentials_file={PASSWD},retry_budget=2s"

    def write(self, more: str) -> None:
        line = f"{self.bucket} {MOUNTPOINT} fuse.ossfs-py {self.options},{more} 0 0\n"
        self.machine.write("/etc/fstab", line)
        self.machine.run("systemctl", "daemon-reload")

    def mount_all(self) -> tuple[int, str]:
        """``mount -a``: exit code and what it says."""
        done = self.machine.run("mount", "-a", check=False)
        return done.returncode, done.stderr

    def options_now(self) -> list[str]:
        shown = self.machine.run("findmnt", "-no", "OPTIONS", MOUNTPOINT, check=False).stdout
        return shown.strip().split(",")

    @property
    def mounted(self) -> bool:
        return self.machine.run("mountpoint", "-q", MOUNTPOINT, check=False).returncode == 0


@pytest.fixture
def fstab(machine: Booted, seaweed: SeaweedServer, store: Proxy) -> Iterator[Fstab]:
    keys = f"{seaweed.access_key}:{seaweed.secret_key}\n"
    machine.write(PASSWD, keys, "600")
    machine.run("mkdir", "-p", MOUNTPOINT)
    yield Fstab(machine, make_bucket(seaweed), store.endpoint)
    machine.run("umount", "-l", MOUNTPOINT, check=False)
    machine.write("/etc/fstab", "")
    machine.run("systemctl", "daemon-reload")
    machine.run("rm", "-rf", "/var/lib/ossfs-py")


def test_a_line_of_fstab_is_mounted_and_unmounted(fstab: Fstab, minio_client: Minio) -> None:
    fstab.write("defaults,_netdev,nofail,data_path=direct,file_mode=0640")
    assert fstab.mount_all() == (0, "")
    assert fstab.mount_all() == (0, "")  # what is mounted is left alone
    fstab.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a")
    assert stored(minio_client, fstab.bucket, "a") == b"hello\n"
    fstab.machine.run("umount", MOUNTPOINT)
    assert not fstab.mounted


def test_unmounting_waits_for_what_write_back_owes(
    fstab: Fstab, store: Proxy, minio_client: Minio
) -> None:
    fstab.write("write_back,data_path=temp")
    assert fstab.mount_all() == (0, "")
    store.faults.append(Fault(operation="PutObject", times=None, delay_seconds=1.0))
    fstab.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a; umount {MOUNTPOINT}")
    assert stored(minio_client, fstab.bucket, "a") == b"hello\n"


def test_words_of_mount_are_not_taken_for_mistakes(fstab: Fstab) -> None:
    fstab.write(WORDS_OF_MOUNT)
    done = fstab.machine.run("mount", MOUNTPOINT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    fstab.machine.run("umount", MOUNTPOINT)


def test_a_typo_in_fstab_is_told_in_one_sentence(fstab: Fstab) -> None:
    fstab.write("data_pth=direct")
    assert fstab.mount_all() == (
        32,
        "mount.ossfs-py: -o data_pth: no such option (did you mean data_path?)\n",
    )
    assert not fstab.mounted


def test_a_typo_is_only_warned_of_when_mount_is_told_to_be_sloppy(fstab: Fstab) -> None:
    fstab.write("data_pth=direct")
    done = fstab.machine.run("mount", "-s", MOUNTPOINT)
    assert done.stderr.startswith("mount.ossfs-py: warning: -o data_pth: no such option")
    assert fstab.mounted
    fstab.machine.run("umount", MOUNTPOINT)


def test_a_bucket_that_is_missing_is_told_in_one_sentence(fstab: Fstab) -> None:
    fstab.bucket = "nobody-has-this"
    fstab.write("ro")
    code, told = fstab.mount_all()
    assert code == 32
    assert told.startswith("mount.ossfs-py: there is no bucket 'nobody-has-this'")
    assert told.count("\n") == 1


def test_a_remount_changes_what_the_kernel_enforces(fstab: Fstab) -> None:
    fstab.write("data_path=direct")
    fstab.mount_all()
    fstab.machine.run("mount", "-o", "remount,ro", MOUNTPOINT)
    assert "ro" in fstab.options_now()
    done = fstab.machine.run("touch", f"{MOUNTPOINT}/a", check=False)
    assert "Read-only file system" in done.stderr
    fstab.machine.run("mount", "-o", "remount,rw", MOUNTPOINT)
    fstab.machine.run("touch", f"{MOUNTPOINT}/a")
    fstab.machine.run("umount", MOUNTPOINT)


@pytest.mark.parametrize("words", ["remount", "remount,suid,dev", "remount,ro,exec"])
def test_no_remount_lets_programs_of_the_bucket_run_as_root(fstab: Fstab, words: str) -> None:
    fstab.write("data_path=direct,suid,dev")
    fstab.mount_all()
    fstab.machine.run("mount", "-o", words, MOUNTPOINT)
    assert {"nosuid", "nodev"} <= set(fstab.options_now())
    fstab.machine.run("umount", MOUNTPOINT)


def test_a_read_only_daemon_is_not_made_writable_by_a_remount(fstab: Fstab) -> None:
    fstab.write("ro")
    fstab.mount_all()
    done = fstab.machine.run("mount", "-o", "remount,rw", MOUNTPOINT, check=False)
    assert done.returncode == 32
    assert "was mounted read-only: unmount it and mount it again" in done.stderr
    assert "ro" in fstab.options_now()
    fstab.machine.run("umount", MOUNTPOINT)


def test_a_dry_run_mounts_nothing(fstab: Fstab) -> None:
    fstab.write("data_path=direct")
    fstab.machine.run("mount", "-f", MOUNTPOINT)
    assert not fstab.mounted


def test_systemd_mounts_and_unmounts_the_line_of_fstab(fstab: Fstab, minio_client: Minio) -> None:
    fstab.write("_netdev,nofail,write_back")
    fstab.machine.run("systemctl", "start", "run-fstab.mount")
    fstab.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a")
    fstab.machine.run("systemctl", "stop", "run-fstab.mount")
    assert not fstab.mounted
    assert stored(minio_client, fstab.bucket, "a") == b"hello\n"


def test_a_mount_whose_daemon_was_killed_is_mounted_anew(fstab: Fstab) -> None:
    fstab.write("data_path=direct")
    fstab.mount_all()
    (mounted,) = json.loads(fstab.machine.run("ossfs-py", "list", "--json").stdout)
    fstab.machine.run("kill", "-KILL", str(mounted["pid"]))
    wait_until(lambda: fstab.machine.run("ls", MOUNTPOINT, check=False).returncode != 0)
    fstab.machine.run("mount", MOUNTPOINT)
    assert fstab.machine.run("ls", MOUNTPOINT).stdout == ""
    fstab.machine.run("umount", MOUNTPOINT)
    assert not fstab.mounted
