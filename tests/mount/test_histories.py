"""Random histories that boto3 made on a real server: mounts of the past equal what was there.

All histories lie side by side in one bucket, so that one mount of a moment shows every one of them.
The times that count are the store's own, which are compared with those at which it was asked.
``make histories`` says how many; on another server as ``tests/support/chosen.py`` says.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.conftest import MountFactory
from tests.support.chosen import chosen_server
from tests.support.histories import Happened, History, drawn, forget_all
from tests.support.mounting import DATA_PATHS
from tests.support.seaweed import SeaweedServer

HISTORIES = int(os.environ.get("OSSFS_PY_HISTORIES", "12"))
MOMENTS = 20 if "OSSFS_PY_HISTORIES" in os.environ else 2
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
TICK_SECONDS = 1.1
"""Stores tell whole seconds."""
AT_ONCE = 8
NO_ORDER_WITHIN_A_SECOND = ("moto",)
"""Of what happens to a key within one second these tell no order, so it does not."""
NO_VERSIONS_OF_MARKERS = ("", "seaweedfs")
"""These store a directory's marker as one directory, without versions."""
LONGEST_PAUSE_SECONDS = 0.8
EPOCH = datetime.fromtimestamp(0, UTC)


@pytest.fixture
def client(seaweed: SeaweedServer) -> Any:
    """Boto3's, which never asks twice."""
    return boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            max_pool_connections=AT_ONCE,
        ),
    )


@pytest.fixture
def kept(client: Any, bucket: str) -> Iterator[str]:
    """A bucket that keeps versions, and nothing at the end."""
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    yield bucket
    forget_all(client, bucket)


@pytest.mark.timeout(300 + 7 * HISTORIES)
def test_mounts_of_random_times_equal_what_boto3_did_over_each_data_path(
    mount: MountFactory, client: Any, kept: str, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    # A mount of a time before anything was stored is refused.
    client.put_object(Bucket=kept, Key="first", Body=b"of all")
    time.sleep(TICK_SECONDS)
    histories = [
        History(
            *(client, kept, f"h{number:04}/", changes),
            in_parts=number == 0,
            markers=chosen_server() not in NO_VERSIONS_OF_MARKERS,
        )
        for number, changes in enumerate(drawn(HISTORIES, SEED))
    ]
    assert len(histories) == HISTORIES
    # A cache that several moments share, as on a machine that mounts one after the other.
    (cache := tmp_path / "cache").mkdir(mode=0o700)
    compared = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        began_us, ended_us = make(histories, pool, chance)
        # Each by itself: SeaweedFS loses names where a listing of versions goes on.
        for _ in pool.map(History.learn_times, histories):
            pass
        for _ in range(MOMENTS):
            at_us = chance.randint(began_us, ended_us)
            moment = (EPOCH + timedelta(microseconds=at_us)).isoformat()
            trees = [history.at(at_us * 1000) for history in histories]
            names = {
                "first",
                *(h.prefix[:-1] for h, tree in zip(histories, trees, strict=True) if tree),
            }
            for path_number, path in enumerate(DATA_PATHS):
                options = {"cache_dir": cache} if path == "cache" else {}
                mounted = mount(kept, at=moment, data_path=path, **options)
                if chance.randrange(2):
                    assert shown(mounted.path) == names, (moment, path)  # before any lookup
                turns = ((number + path_number) % 3 for number in range(HISTORIES))
                problems = [
                    problem
                    for found in pool.map(compare, repeat(mounted.path), histories, trees, turns)
                    for problem in found
                ]
                assert not problems, (moment, path, problems)
                assert shown(mounted.path) == names, (moment, path)
                assert mounted.unmount() == 0, mounted.log
                compared += sum(map(len, trees))
    changes = sum(len(each.changes) for each in histories)
    print(  # noqa: T201 - for who runs it with -s
        f"\n{HISTORIES} histories of {changes} changes in {(ended_us - began_us) / 1e6:.0f} s,"
        f" {MOMENTS} moments, {len(DATA_PATHS)} data paths: {compared} files compared"
    )


def make(
    histories: Sequence[History], pool: ThreadPoolExecutor, chance: random.Random
) -> tuple[int, int]:
    """Let everything happen, of each history in its order; from when to when, in microseconds."""
    began = time.time_ns()
    for turn in range(max(len(each.changes) for each in histories)):
        for _ in pool.map(History.make, histories, repeat(turn)):
            pass  # what a thread raises is raised here
        slowly = chosen_server() in NO_ORDER_WITHIN_A_SECOND
        time.sleep(TICK_SECONDS if slowly else chance.uniform(0, LONGEST_PAUSE_SECONDS))
    ended = time.time_ns()
    time.sleep(TICK_SECONDS)
    return began // 1000, ended // 1000


def compare(root: Path, history: History, tree: Mapping[str, Happened], turn: int) -> list[str]:
    """What is otherwise in a mount than it was: names, sizes, bytes, ETags, ids of versions.

    ``turn`` says whether each name that ever was is looked up before the listing (0), behind it
    (1), or not: what is missing costs two requests each time.
    """
    problems = []
    top = root / history.prefix
    if turn == 0:
        problems += looked_up(top, history, tree)
    files, directories = walked(top)
    if turn == 1:
        problems += looked_up(top, history, tree)
    wanted = {key for key in tree if not key.endswith("/")}
    if files != wanted:
        problems.append(f"{history.prefix}: files are {sorted(files)}, were {sorted(wanted)}")
    if directories != (parents := {f"{p}/" for key in tree for p in above(key)}):
        problems.append(f"{history.prefix}: directories are {directories}, were {parents}")
    for key in files & wanted:
        path, then = top / key, tree[key]
        for what, found, expected in (
            ("size", path.stat().st_size, len(then.content or b"")),
            ("bytes", path.read_bytes(), then.content),
            ("ETag", os.getxattr(path, "user.ossfs.etag").decode().strip('"'), then.etag),
            ("version", os.getxattr(path, "user.ossfs.version-id").decode(), then.version_id),
        ):
            if found != expected:
                problems.append(
                    f"{history.prefix}{key}: {what} is {found!r:.80}, was {expected!r:.80}"
                )
    return problems


def shown(directory: Path) -> set[str]:
    """What a listing has."""
    return {each.name for each in directory.iterdir()}


def looked_up(top: Path, history: History, tree: Mapping[str, Happened]) -> list[str]:
    """Names of the history that are there and were not, or the other way round."""
    return [
        f"{history.prefix}{key} is {'there' if is_there else 'missing'}"
        for key in history.account
        if not key.endswith("/") and (is_there := (top / key).exists()) != (key in tree)
    ]


def walked(top: Path) -> tuple[set[str], set[str]]:
    """Files and directories below a directory, which may be missing; these end with a slash."""
    files, directories = set(), set()
    for where, below, names in os.walk(top):
        base = os.path.relpath(where, top)
        prefix = "" if base == "." else f"{base}/"
        files |= {prefix + name for name in names}
        directories |= {f"{prefix}{name}/" for name in below}
    return files, directories


def above(key: str) -> Iterator[str]:
    """The directories that a key is in, or is the marker of."""
    names = key.split("/")[:-1]
    for depth in range(1, len(names) + 1):
        yield "/".join(names[:depth])
