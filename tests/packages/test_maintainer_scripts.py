"""What the Debian package's scripts and units do to a machine, tried where they can do no harm."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / ".ci" / "packaging" / "debian"
INSTALL = Path(__file__).parents[2] / "systemd" / "install"
ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
# Empty directories in place of the machine's, in a mount namespace that ends with the script.
AWAY = """
set -e
for directory in /etc /var/lib /var/cache; do mount -t tmpfs none "$directory"; done
mkdir -p /etc/ossfs-py /var/cache/ossfs-py "/var/lib/ossfs-py/mnt/$1" /var/lib/ossfs-py/mnt/staging
touch /etc/ossfs-py/models.toml /var/lib/ossfs-py/mnt/lock
[ "$1" = scratch ] || touch "/var/lib/ossfs-py/mnt/$1/1.json"
sh "$2" "$3"
cd /; ls -d etc/ossfs-py var/cache/ossfs-py var/lib/ossfs-py 2>/dev/null || true
"""


def after(script: str, action: str, owed: str = "scratch") -> tuple[list[str], str]:
    """What is left of the package's directories, and what was said."""
    path = str(SCRIPTS / script)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", AWAY, "sh"]
    done = subprocess.run(
        [*ROOT, *command, owed, path, action], capture_output=True, text=True, check=True
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("action", ["remove", "upgrade"])
def test_removing_the_package_keeps_configuration_and_state(action: str) -> None:
    kept = ["etc/ossfs-py", "var/cache/ossfs-py", "var/lib/ossfs-py"]
    assert after("postrm", action) == (kept, "")


def test_purging_takes_configuration_cache_and_state_that_owes_nothing() -> None:
    assert after("postrm", "purge") == ([], "")


@pytest.mark.parametrize("owed", ["staging", "unsaved", "markers", "removals"])
def test_purging_keeps_what_is_not_in_its_bucket_yet_and_says_so(owed: str) -> None:
    left, said = after("postrm", "purge", owed)
    assert left == ["var/lib/ossfs-py"]
    assert said.strip() == (
        "/var/lib/ossfs-py is kept: it has files that are not in their bucket yet"
    )


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_each_script_is_one_that_sh_reads_and_may_be_run(script: str) -> None:
    path = SCRIPTS / script
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True)
    assert path.read_text().startswith("#!/bin/sh\nset -e\n")


def test_units_and_examples_name_the_programs_where_the_package_has_them(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PREFIX": "/usr",
        "DESTDIR": str(tmp_path),
        "PYTHON": "/usr/bin/env",
    }
    subprocess.run([INSTALL], env=environment, check=True)
    installed = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in installed if b"/usr/local" in path.read_bytes()] == []
    named = {
        program
        for unit in (tmp_path / "usr/lib/systemd").rglob("*.service")
        for program in re.findall(r"^Exec\w+=-?(\S*/ossfs-py) ", unit.read_text(), re.MULTILINE)
    }
    assert named == {"/usr/bin/ossfs-py"}
    assert os.access(tmp_path / "usr/bin/ossfs-py", os.X_OK)
