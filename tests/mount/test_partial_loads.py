"""Programs that want little of a model get that and not much more, and those that want ten thousand
small tensors get them in few requests.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loaders import MANY, MIB, SAFETENSORS, make_many
from tests.support.loading import BUCKET, ENVIRONMENT, Shaped
from tests.support.mounting import DATA_PATHS, Mount
from tests.support.requirements import require_torch

TTFB_MS, MBPS = 25, 90
COUNT, EACH_BYTES = 10_000, 100_000
HUNDRED_BYTES = 100 * EACH_BYTES
FILES = 1000


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shaped]:
    root = tmp_path_factory.mktemp("shaped")
    bucket = root / BUCKET
    bucket.mkdir()
    make_many(bucket / MANY, COUNT, EACH_BYTES)
    make_many(bucket / SAFETENSORS, 32, 16 * MIB)
    with Shaped.serving(root, TTFB_MS, MBPS) as store:
        yield store


@pytest.fixture(scope="module", params=DATA_PATHS)
def mounted(
    request: pytest.FixtureRequest, shaped: Shaped, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mount]:
    work = tmp_path_factory.mktemp(str(request.param))
    with Mount(
        BUCKET,
        work,
        endpoint=shaped.endpoint,
        environment=ENVIRONMENT,
        data_path=request.param,
        read_only=True,
        metadata_ttl=0,
        access_log=work / "access.log",
    ) as one:
        yield one
        assert one.unmount() == 0, one.log
    assert "Traceback" not in one.log, one.log


@pytest.fixture(scope="module")
def narrow(shaped: Shaped, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for ranks that read slices."""
    work = tmp_path_factory.mktemp("narrow")
    with Mount(
        BUCKET,
        work,
        endpoint=shaped.endpoint,
        environment=ENVIRONMENT,
        data_path="direct",
        read_only=True,
        readahead="256K",
        access_log=work / "access.log",
    ) as one:
        yield one
        assert one.unmount() == 0, one.log


def loaded(how: str, shaped: Shaped, mounted: Mount) -> tuple[int, int, int]:
    """Requests, bytes that were fetched, and bytes that the kernel asked for. Every byte that was
    loaded is the store's.
    """
    name = f"{mounted.options['data_path']}-{how.replace(' ', '-').replace(',', '')}"
    shaped.under(name)
    shaped.ask("POST")
    digest = shaped.loading.digest(how, mounted.path / name)
    said = shaped.ask("GET")
    assert digest == shaped.digest(how)
    requests = dict(said["ops"]).get("get", 0)  # type: ignore[call-overload]
    return requests, int(str(said["bytes_out"])), asked_bytes(mounted, name)


def asked_bytes(mounted: Mount, name: str) -> int:
    log = Path(str(mounted.options["access_log"]))
    lines = (json.loads(line) for line in log.read_text().splitlines())
    return sum(
        line["bytes"]
        for line in lines
        if line["operation"] == "read" and line["path"].startswith(f"/{name}/")
    )


def test_a_hundred_tensors_of_ten_thousand_that_are_read_bring_little_else(
    shaped: Shaped, mounted: Mount
) -> None:
    _, fetched, _ = loaded("100 of many, pread", shaped, mounted)
    assert fetched <= 1.3 * HUNDRED_BYTES, f"{fetched / MIB:.1f} MiB"


@pytest.mark.parametrize("how", ["100 of many tensors", "100 of many, in order"])
def test_a_hundred_mapped_tensors_bring_what_the_kernel_reads_around_them(
    how: str, shaped: Shaped, mounted: Mount
) -> None:
    """The kernel asks for 1 MiB before and 1 MiB behind each of its faults."""
    require_torch()
    _, fetched, asked = loaded(how, shaped, mounted)
    told = f"{fetched / MIB:.1f} MiB, the kernel asked for {asked / MIB:.1f}"
    assert asked <= 210 * MIB, told
    assert fetched <= 1.1 * asked + 2 * MIB, told


@pytest.mark.parametrize(("how", "most"), [("3 of many tensors", 14), ("3 looks", 24)])
def test_a_loader_that_stops_after_three_tensors_has_cost_little(
    how: str, most: int, shaped: Shaped, mounted: Mount
) -> None:
    require_torch()
    _, fetched, asked = loaded(how, shaped, mounted)
    assert fetched <= most * MIB, f"{fetched / MIB:.1f} MiB, asked for {asked / MIB:.1f}"


def test_one_rank_of_two_brings_what_the_kernel_asks_for(shaped: Shaped, mounted: Mount) -> None:
    """Half of each tensor, 1 MiB before it, and up to 4 MiB behind it."""
    require_torch()
    _, fetched, asked = loaded("one rank of two", shaped, mounted)
    size = (shaped.bucket / SAFETENSORS).stat().st_size
    told = f"{fetched / size:.3f} of the bytes, the kernel asked for {asked / size:.3f}"
    assert asked <= 0.84 * size, told
    assert fetched <= 1.1 * asked, told


def test_one_rank_of_two_brings_six_tenths_with_little_readahead(
    shaped: Shaped, narrow: Mount
) -> None:
    require_torch()
    _, fetched, asked = loaded("one rank of two", shaped, narrow)
    size = (shaped.bucket / SAFETENSORS).stat().st_size
    told = f"{fetched / size:.3f} of the bytes, the kernel asked for {asked / size:.3f}"
    assert fetched <= 0.62 * size, told


def test_ten_thousand_small_tensors_are_loaded_in_few_requests(
    shaped: Shaped, mounted: Mount
) -> None:
    require_torch()
    requests, fetched, _ = loaded("many small tensors", shaped, mounted)
    assert fetched <= 1.01 * COUNT * EACH_BYTES, f"{fetched / MIB:.1f} MiB"
    assert requests <= 200


@pytest.mark.parametrize("how", ["headers only", "headers only, read"])
def test_a_thousand_files_opened_for_their_header_bring_one_mib_each_at_most(
    how: str, shaped: Shaped, mounted: Mount
) -> None:
    name = f"{mounted.options['data_path']}-hub-{'read' in how}"
    hub = shaped.bucket / name
    hub.mkdir()
    for number in range(FILES):
        os.link(shaped.bucket / SAFETENSORS, hub / f"shard-{number:05}-of-{FILES:05}.safetensors")
    shaped.ask("POST", "shape?ttfb_ms=0&mbps=0")
    shaped.ask("POST")
    shaped.loading.digest(how, mounted.path / name)
    said = shaped.ask("GET")
    shaped.ask("POST", f"shape?ttfb_ms={TTFB_MS}&mbps={MBPS}")
    fetched = int(str(said["bytes_out"]))
    assert asked_bytes(mounted, name) >= FILES * 4096
    # Listings count, too.
    assert fetched <= FILES * MIB + MIB, f"{fetched / FILES / MIB:.2f} MiB each"
