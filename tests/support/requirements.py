"""What some tests need and not every machine has: without it they are skipped, with the reason.

Continuous integration has all of it and refuses skips, see ``tests/conftest.py``.
"""

import functools
import os
import subprocess
from importlib import import_module
from types import ModuleType

import pytest


def require_torch() -> ModuleType:
    """The library; skips where it cannot be imported."""
    try:
        return import_module("torch")
    except ImportError:
        pytest.skip("torch cannot be imported: make test TORCH=1 brings it")


def require_private_mounts() -> None:
    """Skips where root cannot have mounts that nobody else sees: in containers and chroots."""
    if problem := _private_mounts_problem():
        pytest.skip(f"mounts of one's own cannot be had here: {problem}")


@functools.cache
def _private_mounts_problem() -> str:
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # Mounts something: a container may let programs have the namespace and no mount in it.
    probe = [*root, "unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
