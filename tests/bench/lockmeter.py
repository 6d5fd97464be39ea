"""How long a daemon holds the interpreter's lock, seen from outside; CPython 3.11 only.

``python -m tests.bench.lockmeter LIBRARY FILE ARGUMENT…`` runs ``ossfs-py ARGUMENT…`` with the
meter in it, which adds up in ``FILE`` (see ``lockmeter.c``).
"""

import importlib.util
import runpy
import struct
import subprocess
import sys
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

SUPPORTED = sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11)
_SEEN = struct.Struct("=dd")
_SOURCE = Path(__file__).with_suffix(".c")


def build(directory: Path) -> Path | None:
    """The meter, compiled into ``directory``; None where this interpreter is another one, or where
    gcc or Python's headers are missing."""
    if not SUPPORTED:
        return None
    library = directory / "lockmeter.so"
    include = sysconfig.get_path("include")
    command = ["gcc", "-O2", "-shared", "-fPIC", f"-I{include}", "-o", library, _SOURCE]
    try:
        done = subprocess.run([*command, "-lpthread"], check=False, capture_output=True)
    except FileNotFoundError:
        return None
    return library if done.returncode == 0 else None


def command(library: Path, seen: Path) -> list[str]:
    """What to run instead of ``python -m ossfs_py``."""
    return [sys.executable, "-m", __spec__.name, str(library), str(seen)]


def held_seconds(seen: Path) -> float:
    """Wall time with the lock taken since the daemon's start."""
    held, _watched = _SEEN.unpack(seen.read_bytes())
    return float(held)


def start(library: str, seen: str) -> None:
    """Begin to watch this process."""
    loader = ExtensionFileLoader("lockmeter", library)
    spec = importlib.util.spec_from_file_location("lockmeter", library, loader=loader)
    if spec is None:
        raise RuntimeError(f"{library} is no module")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.start(seen)


if __name__ == "__main__":
    start(*sys.argv[1:3])
    sys.argv[1:] = sys.argv[3:]
    runpy.run_module("ossfs_py", run_name="__main__", alter_sys=True)
