"""Everything at once for a while, on a store that fails all the time: no wrong byte, no error, no
leak, and never more memory than promised.

``OSSFS_PY_SOAK_SECONDS`` says for how long on each data path (``make soak``).
"""

import os

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.soak.mixed import Soak
from tests.support.limits import memory_limited
from tests.support.places import MIB
from tests.support.proxy import Proxy

SECONDS = float(os.environ.get("OSSFS_PY_SOAK_SECONDS", "10"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
BUDGET_BYTES = 150 * MIB
LIMIT_BYTES = 300 * MIB
CONCURRENCY = 16
MOST_THREADS = CONCURRENCY + 24
"""Network and file threads, the loop, invalidation, the resolver and some of the libraries'."""
MOST_DESCRIPTORS = 256
STALL_SECONDS = 3
"""Short, or the soak would mostly wait for the stalls that it makes. The store itself is slower
than that on a busy machine; that is one fault more, which ..."""
RETRY_BUDGET = "1h"
"""... no program may come to see: only what is injected is to decide, and that ends."""


@pytest.mark.timeout(900 + 2 * SECONDS)
def test_mixed_load_over_a_failing_store_is_right_and_bounded(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio, data_path: str
) -> None:
    mounted = mount(
        bucket,
        endpoint=proxy.endpoint,
        data_path=data_path,
        memory_limit=BUDGET_BYTES,
        concurrency=CONCURRENCY,
        stall_timeout=f"{STALL_SECONDS}s",
        retry_budget=RETRY_BUDGET,
        log_level="warning",
        executed=True,
        # Smaller than what is read, so that it is filled and emptied all the time.
        **({"cache_size": 64 * MIB} if data_path == "cache" else {}),
    )
    proxy.keep_exchanges = False
    with memory_limited(mounted.pid, LIMIT_BYTES) as group:
        figures = Soak(mounted, proxy, minio_client, bucket, SEED).run(SECONDS)
        print(f"{data_path}: {figures}")  # noqa: T201 - shown by make soak
        assert not figures.errors, "\n".join(figures.errors)
        assert figures.faults
        assert figures.verified_bytes
        assert figures.peak_rss_bytes < LIMIT_BYTES
        assert figures.peak_threads <= MOST_THREADS
        assert figures.peak_descriptors <= MOST_DESCRIPTORS
        assert group is None or group.killed == 0
        assert mounted.unmount() == 0
    assert "were not given back" not in mounted.log
    assert not mounted.local_files() or data_path == "cache"
