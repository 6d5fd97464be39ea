"""The first minute of somebody who has just installed the program: mount, read, write, unmount."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.commands import plain_environment

ALONE = ["unshare", "--mount", "--propagation", "private"] if os.geteuid() == 0 else []
"""Where no other test takes a copy of the mount into a namespace of its own, which would keep its
daemon alive."""
LINES = """
set -e
trap 'mountpoint -q "$AT" && umount -l "$AT"; true' EXIT
mkdir -p "$AT"
ossfs-py mount "$BUCKET" "$AT" --endpoint "$ENDPOINT"
cat "$AT/hello"
echo written >"$AT/answer"
ossfs-py umount "$AT"
"""


def first_minute(
    programs: str, home: Path, bucket: str, endpoint: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Type the lines in a shell that finds ``ossfs-py`` along ``programs`` and nothing of ours."""
    directories = {f"OSSFS_PY_{name.upper()}_DIR": str(home / name) for name in ("temp", "state")}
    for path in directories.values():
        Path(path).mkdir(mode=0o700, parents=True)
    return subprocess.run(
        [*ALONE, "sh", "-c", LINES],
        env=plain_environment(
            {
                **environment,
                **directories,
                "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": str(home),
                "BUCKET": bucket,
                "ENDPOINT": endpoint,
                "AT": str(home / "models"),
            }
        ),
        cwd="/",  # the checkout would be found before what is installed
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
