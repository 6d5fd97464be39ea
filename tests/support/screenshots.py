"""Pictures of the status page of a mount that is at work, light and dark, as a browser shows it.

``python -m tests.support.screenshots DIRECTORY [--seconds 200]`` writes ``status-light.png`` and
``status-dark.png``. It needs a Chromium on PATH, and keeps the pictures small by using few colours.
"""

import argparse
import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from minio import Minio
from PIL import Image

from ossfs_py.demo.server import REGION
from tests.support.mounting import Mount
from tests.support.stores import shaped_seaweed

BUCKET = "models"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DARK, LIGHT = "0", "1"
"""Chromium's numbers of the schemes that a page may prefer."""
COLOURS = 128
SIZE = "1100,1300"
MIB = 1024**2
FILE_BYTES = 96 * MIB


def shown(browser: str, address: str, scheme: str, path: Path) -> None:
    """Write what the browser shows of ``address`` to ``path``."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={profile}", f"--window-size={SIZE}"),
                *("--virtual-time-budget=2500", f"--blink-settings=preferredColorScheme={scheme}"),
                *(f"--screenshot={path}", address),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


@contextlib.contextmanager
def at_work(mounted: Mount) -> Iterator[None]:
    """Programs that read and write, on and off."""
    stopped = threading.Event()

    def work() -> None:
        for number in itertools.count():
            if stopped.wait(4 + number % 3 * 5):
                return
            model = mounted.path / f"model-{number % 4}"
            with model.open("rb") as file:
                # Reads that the kernel answers from its page cache are in no chart.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.read()
            if number % 3 == 2:
                (mounted.path / f"checkpoint-{number}").write_bytes(os.urandom(FILE_BYTES // 3))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def main() -> None:
    """Mount, work, look."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.screenshots")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seconds", type=float, default=200.0)
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"none of {', '.join(BROWSERS)} is installed")
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        store = stack.enter_context(shaped_seaweed(Path(scratch), 25, 90))
        keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        Minio(
            store.endpoint.removeprefix("http://"),
            store.access_key,
            store.secret_key,
            secure=False,
            region=REGION,
        ).make_bucket(BUCKET)
        mounted = stack.enter_context(
            Mount(
                BUCKET,
                Path(scratch) / "mount",
                endpoint=store.endpoint,
                environment=keys,
                data_path="cache",
                cache_size="256M",
                memory_limit="256M",
                metrics_address="0",
            )
        )
        for number in range(4):
            (mounted.path / f"model-{number}").write_bytes(os.urandom(FILE_BYTES))
        address = re.search(r"metrics are served at (\S+)metrics", mounted.log)
        assert address is not None, mounted.log
        with at_work(mounted):
            time.sleep(options.seconds)
            for name, scheme in (("light", LIGHT), ("dark", DARK)):
                path = options.directory / f"status-{name}.png"
                shown(browser, address.group(1), scheme, path)
        mounted.unmount()


if __name__ == "__main__":
    main()
