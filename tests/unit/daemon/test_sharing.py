"""What a shared cache costs a mount that has none."""

import subprocess
import sys

PROGRAM = """
import sys
import trio
from ossfs_py.config import Settings
from ossfs_py.daemon import assembly, options, sharing

def loaded():
    return {name for name in sys.modules if name.startswith("ossfs_py.sharedcache.")}

settings = Settings.model_validate({"bucket": "models", "mountpoint": "/mnt/models", **MORE})

async def main():
    with sharing.sharing(settings, None, assembly.Metrics()) as shared:
        print(options.read_options(settings).grain_bytes, shared.handing_on is None)

trio.run(main)
print(*sorted(name.rpartition(".")[2] for name in loaded()))
"""


def run(more: dict[str, str]) -> list[str]:
    program = f"MORE = {more!r}\n{PROGRAM}"
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_a_mount_that_shares_nothing_loads_no_client_and_cuts_no_request() -> None:
    # What says how nodes are written is there for all: options are checked by it.
    assert run({}) == ["1 True", "blocks members"]
    made, names = run({"shared_cache": "127.0.0.1:1"})
    assert made == "1048576 False"
    assert {"cache", "connection", "keeping", "node", "stock"} <= set(names.split())
