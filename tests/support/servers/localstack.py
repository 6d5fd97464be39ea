"""LocalStack's S3."""

import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.launching import (
    Running,
    environment_with,
    free_ports,
    output_of,
    program,
    wait_until,
)

PACKAGES = (
    "localstack-core[base-runtime]",
    # Later ones need Python 3.12 without saying so.
    'localstack-core<4.10; python_version < "3.12"',
    *("moto-ext", "cbor2<6", "cryptography<46", "pyopenssl<25.2", "service_identity<25"),
)


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A LocalStack that offers S3 only; it keeps objects in memory and below ``home``."""
    python = environment_with("localstack", *PACKAGES) / "python"
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "SERVICES": "s3",
        "EAGER_SERVICE_LOADING": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "LOCALSTACK_VOLUME_DIR": str(home),
        "FILESYSTEM_ROOT": str(home / "fs"),
        "PERSISTENCE": "0",
        "STRICT_SERVICE_LOADING": "1",
        "DNS_ADDRESS": "0",
        # What it knows of its own plugins it keeps there, also of installations that are no more.
        "XDG_CACHE_HOME": str(home),
    }
    log = home / "localstack.log"
    with program([python, "-m", "localstack.runtime.main"], log, settings) as process:
        wait_until(lambda: healthy(endpoint), "LocalStack", log, process)
        version = output_of(
            python, "-c", "import importlib.metadata as m; print(m.version('localstack-core'))"
        )
        yield Running(endpoint, f"LocalStack {version}")


def healthy(endpoint: str) -> bool:
    """Whether it says that it is."""
    try:
        with urllib.request.urlopen(f"{endpoint}/_localstack/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
