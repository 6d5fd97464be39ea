"""Record what libraries read: ``python -m tests.support.traces [--mib 64] [NAME ...]``.

Each of ``tests.support.libraries`` that is installed loads its files cold through a mount over
``direct`` from a shaped store; the reads of its largest file become a trace beside this file.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ossfs_py.foresight.formats import table_of
from ossfs_py.foresight.layout import Index, TableError
from tests.support import shaped_store
from tests.support.file_formats import all_of
from tests.support.libraries import LIBRARIES, Library
from tests.support.mounting import Mount
from tests.support.stores import Store, shaped_program

_PAGE_BYTES = 4096
BUCKET = "models"


def main() -> int:
    """Record those asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.traces")
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ossfs-py-traces-") as scratch:
        root = Path(scratch) / "store"
        with shaped_program(Path(shaped_store.__file__), root, 25, 90) as store:
            (root / BUCKET).mkdir()
            for name, library in LIBRARIES.items():
                if options.names and name not in options.names:
                    continue
                if not all(find_spec(module) for module in library.needs):
                    print(f"{name} is left out: it needs {', '.join(library.needs)}.")  # noqa: T201
                    continue
                place = root / BUCKET / Library.directory(name)
                place.mkdir()
                library.make(place, options.mib)
                log = _loaded(name, store, Path(scratch) / f"run-{Library.directory(name)}")
                kept = _trace(log, place, library.reads)
                path = Path(__file__).with_name(f"{Library.directory(name)}.json")
                path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
                print(f"{name}: {len(kept['reads'])} reads")  # type: ignore[arg-type]  # noqa: T201
    return 0


def _loaded(name: str, store: Store, work: Path) -> Path:
    """The access log of one load through a fresh mount."""
    environment = {
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    log = work / "access.log"
    with Mount(
        BUCKET,
        work,
        endpoint=store.endpoint,
        environment=environment,
        data_path="direct",
        read_only=True,
        access_log=log,
    ) as mounted:
        command = [sys.executable, "-m", "tests.support.loaders", name, str(mounted.path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        mounted.unmount()
    return log


def _trace(log: Path, place: Path, reads: str) -> dict[str, object]:
    path = max(place.glob(reads), key=lambda path: path.stat().st_size)
    wanted = f"/{path.relative_to(place.parent)}"
    lines = (json.loads(line) for line in log.read_text().splitlines())
    found = sorted(
        (line["time"], line["offset"] // _PAGE_BYTES, -(-line["size"] // _PAGE_BYTES))
        for line in lines
        if line["operation"] == "read" and line["path"] == wanted
    )
    starts, ends = _parts(path)
    return {
        "file_size": path.stat().st_size,
        "starts": starts,
        "ends": ends,
        "reads": [[page, count] for _, page, count in found],
    }


def _parts(path: Path) -> tuple[list[int], list[int]]:
    """Where the parts of a file lie, as its table or a model beside it says."""
    content = path.read_bytes()
    table = table_of(path.name, len(content))
    found = None
    if table is not None:
        with contextlib.suppress(TableError):
            found = all_of(table, content)
    if found is not None and not isinstance(found, Index):
        return list(found.starts), list(found.ends)
    model = path.with_suffix(".onnx")
    if model.exists():
        content = model.read_bytes()
        index = all_of(table_of(model.name, len(content)), content)  # type: ignore[arg-type]
        assert isinstance(index, Index)
        spans = index.parts[path.name]
        return [start for start, _ in spans], [end for _, end in spans]
    return [], []


if __name__ == "__main__":
    sys.exit(main())
