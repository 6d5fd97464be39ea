"""Another user of this machine, who looks at a mount."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.commands import NOBODY

ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
BECOME = """
import errno, json, os, sys
os.setgroups([])
os.setresgid(*[int(sys.argv[1])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
"""
_LOOKS = (
    """
import sys, json
looks = json.load(sys.stdin)
"""
    + BECOME
    + """
results = []
for call, path in looks:
    try:
        if call == 'read':
            with open(path, 'rb') as file:
                results.append(file.read().decode())
        elif call == 'mode':
            found = os.stat(path)
            results.append([found.st_mode & 0o7777, found.st_uid])
        elif call == 'chmod':
            os.chmod(path, 0o640)
            results.append(0)
        else:
            results.append(sorted(os.listdir(path)))
    except OSError as exc:
        results.append(exc.errno)
print(json.dumps(results))
"""
)


def as_stranger(*looks: tuple[str, Path]) -> list[Any]:
    """What another user is answered: content, (mode, owner), 0, names or an errno."""
    return list(
        json.loads(
            run_as_stranger(_LOOKS, text=json.dumps([(call, str(path)) for call, path in looks]))
        )
    )


def run_as_stranger(script: str, *arguments: str | Path, uid: int = NOBODY, text: str = "") -> str:
    """Output of a Python script that begins with, or holds, :data:`BECOME`."""
    # Python starts as root: the checkout may lie where others cannot enter.
    done = subprocess.run(
        [*ROOT, sys.executable, "-c", script, str(uid), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
