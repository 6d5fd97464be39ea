"""What commands and daemons load before they do anything: most of what a start costs.

The suites alone start thousands. Time depends on the machine, so what is bounded is what is loaded.
"""

import json
import os
import subprocess
import sys

import pytest

LIBRARIES = frozenset(
    ("awscrt", "boto3", "botocore", "prometheus_client", "pyfuse3", "rich", "trio", "urllib3")
)


def loaded_by(code: str) -> set[str]:
    """The modules of a fresh interpreter that has run ``code``."""
    environment = {name: value for name, value in os.environ.items() if name[:3] != "AWS"}
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        env={
            **environment,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(told.stdout))


def test_a_mount_with_its_key_in_variables_loads_no_library_that_it_does_not_use() -> None:
    """botocore and awscrt took a third of a start's CPU time."""
    loaded = loaded_by(
        "import ossfs_py.cli.mount, ossfs_py.cli.starting, ossfs_py.daemon.life\n"
        "from ossfs_py.store import StoreOptions, open_store\n"
        "from ossfs_py.store.auth.credentials import CredentialSource\n"
        "from ossfs_py.telemetry.metrics import Metrics\n"
        "options = StoreOptions('models', endpoint='http://127.0.0.1:1')\n"
        "open_store(options, Metrics())\n"
        "assert CredentialSource(options, Metrics(), oss_first=False).current().access_key == 'id'"
    )
    assert loaded & LIBRARIES == {"prometheus_client", "pyfuse3", "trio"}
    assert "pydantic" not in loaded


@pytest.mark.parametrize("command", ["info", "list", "stats", "umount"])
def test_a_small_command_loads_no_library_of_the_daemon(command: str) -> None:
    loaded = loaded_by(
        "import ossfs_py.cli.main as main, ossfs_py.control.client, ossfs_py.writing.leftovers\n"
        f"main.cli.get_command(None, {command!r})"
    )
    assert not loaded & (LIBRARIES - {"rich"})
