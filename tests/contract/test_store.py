"""The contract of ObjectStore, held against real servers that keep it in different measure.

SeaweedFS keeps all of it; moto adds names and metadata that SeaweedFS bends; rclone ignores every
If-Match and If-None-Match, answers ranges with 200 and has no part copies. ``make servers`` holds
it against others, and the environment may name one more (``tests/support/chosen.py``). What a
server does not do stands in ``tests/support/servers/deviations.py``.
"""

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.errors import (
    ConditionFailedError,
    EnvironmentProblemError,
    ObjectMissingError,
    StoreError,
    VersionChangedError,
)
from ossfs_py.model import (
    Body,
    ByteRange,
    CommitRequest,
    Condition,
    FileSlice,
    ListPage,
    ListQuery,
    ObjectVersion,
)
from ossfs_py.namespace.listing import ranges
from ossfs_py.store import StoreOptions, open_store
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.base import MIN_PART_BYTES, Capabilities, ObjectStore
from ossfs_py.store.s3.endpoint import resolve_endpoint
from ossfs_py.store.s3.objectstore import S3ObjectStore
from ossfs_py.telemetry.metrics import Metrics
from tests.support.chosen import ChosenStore, chosen_server
from tests.support.ranged import Reading
from tests.support.seaweed import OUTSIDER, SeaweedServer
from tests.support.servers import launching, moto, rclone
from tests.support.servers.deviations import ALL, CAPABILITIES

ABSENT = Condition(only_if_absent=True)
BUCKET = "contract"
SOME = os.urandom(300_000)
PART = os.urandom(MIN_PART_BYTES)


@dataclass(frozen=True)
class Server:
    """A running server and what it promises."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    capabilities: Capabilities | None
    """What probing must find; None: nobody knows yet."""
    bucket: str = BUCKET
    region: str | None = None

    def options(self, directory: Path, **changes: object) -> StoreOptions:
        path = directory / "credentials"
        path.touch(0o600)
        path.write_text(f"{self.access_key}:{self.secret_key}\n")
        settings = {
            "bucket": self.bucket,
            "endpoint": self.endpoint,
            "region": self.region,
            # A key with a colon is in the environment: see the fixture that chose the store.
            "credentials_file": None if ":" in self.access_key else path,
            "retry_budget_seconds": 10.0,
            **changes,
        }
        return StoreOptions(**settings)  # type: ignore[arg-type]


def served(started: launching.Running, name: str) -> Server:
    return Server(
        name, started.endpoint, started.access_key, started.secret_key, CAPABILITIES[name]
    )


@pytest.fixture(scope="session", name="rclone")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("rclone")
    with rclone.run(root) as started:
        (root / "data" / BUCKET).mkdir()
        yield served(started, "rclone")


@pytest.fixture(scope="session", name="moto")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with moto.run(tmp_path_factory.mktemp("moto")) as started:
        host = started.endpoint.removeprefix("http://")
        client = Minio(host, started.access_key, started.secret_key, secure=False)
        client.make_bucket(BUCKET)
        yield served(started, "moto")


@pytest.fixture(scope="session")
def witnessed(seaweed: SeaweedServer | ChosenStore) -> Iterator[Server]:
    """The server that ``minio_client`` sees: SeaweedFS, or what the environment names."""
    name, bucket, region = "seaweedfs", BUCKET, None
    if isinstance(seaweed, ChosenStore):
        name, bucket, region = seaweed.name, seaweed.fresh_bucket(), seaweed.region
    else:
        seaweed.make_bucket(bucket)
    keys = (seaweed.access_key, seaweed.secret_key)
    yield Server(name, seaweed.endpoint, *keys, CAPABILITIES.get(name), bucket, region)
    if isinstance(seaweed, ChosenStore):
        seaweed.remove_bucket(bucket)


@pytest.fixture(params=[chosen_server()] if chosen_server() else ["seaweedfs", "rclone", "moto"])
def server(request: pytest.FixtureRequest) -> Server:
    beside = request.param in ("rclone", "moto") and not chosen_server()
    found: Server = request.getfixturevalue(request.param if beside else "witnessed")
    return found


@pytest.fixture
def store(server: Server, tmp_path: Path) -> Iterator[ObjectStore]:
    opened = open_store(server.options(tmp_path), Metrics())
    yield opened
    opened.close()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A part of the bucket that belongs to this test."""
    name = request.node.name
    return hashlib.sha256(name.encode()).hexdigest()[:16] + "/"


def read(store: ObjectStore, version: ObjectVersion, span: ByteRange | None = None) -> bytes:
    span = span or ByteRange(0, version.size)
    buffer = bytearray(span.size)
    store.get_range_into(version, span.start, memoryview(buffer))
    return bytes(buffer)


def put(store: ObjectStore, key: str, body: bytes = SOME, **metadata: str) -> ObjectVersion:
    return store.put(CommitRequest(key, metadata), body)


# -- reading -----------------------------------------------------------------------------------


def test_an_object_reads_back_whole_and_in_ranges(store: ObjectStore, prefix: str) -> None:
    version = put(store, prefix + "a")
    assert version.size == len(SOME)
    assert read(store, version) == SOME
    for start, end in ((0, 1), (1, 2), (len(SOME) - 1, len(SOME)), (1000, 280_000)):
        assert read(store, version, ByteRange(start, end)) == SOME[start:end]


def test_head_and_put_and_list_agree(store: ObjectStore, prefix: str) -> None:
    version = put(store, prefix + "a")
    info = store.head(prefix + "a")
    assert info.version == version
    (listed,) = store.list_page(ListQuery(prefix)).objects
    assert listed.version == version
    assert abs(info.mtime_ns / 1e9 - time.time()) < 120
    # A store may know fractions in one answer and not in the other.
    assert abs(listed.mtime_ns - info.mtime_ns) <= 10**9


def test_metadata_and_type_come_back_in_lower_case(store: ObjectStore, prefix: str) -> None:
    metadata = {"mode": "33188", "symlink-target": "header:3:a%2Fb", "uid": "0"}
    store.put(CommitRequest(prefix + "a", metadata, "text/x-model"), b"")
    info = store.head(prefix + "a")
    assert info.metadata == metadata
    assert info.content_type == "text/x-model"
    assert info.size == 0


def test_a_changed_object_is_never_read_as_the_old_version(store: ObjectStore, prefix: str) -> None:
    old = put(store, prefix + "a")
    new = put(store, prefix + "a", SOME[::-1])
    assert old.etag != new.etag
    with pytest.raises(VersionChangedError):
        read(store, old, ByteRange(5, 10))
    shorter = put(store, prefix + "a", b"12345")
    with pytest.raises(VersionChangedError):
        read(store, new, ByteRange(200_000, 200_010))
    assert read(store, shorter) == b"12345"


def test_no_byte_of_another_version_is_given_while_an_object_is_replaced(
    store: ObjectStore, prefix: str
) -> None:
    """rclone tells the ETag that it has looked up and sends what is there by then."""
    key, made, ended = prefix + "a", {}, threading.Event()

    def make(number: int) -> None:
        # Two sizes in turn: a version that is half written is none of those.
        body = b"%08d" % number * (20_000 if number % 2 else 13_000)
        made[hashlib.md5(body).hexdigest()] = body
        store.put(CommitRequest(key), body)

    def replace_again_and_again() -> None:
        number = 1
        while not ended.wait(0.03):
            make(number := number + 1)

    def read_again_and_again(seed: int) -> int:
        right, rng = 0, random.Random(seed)
        for _ in range(60):
            try:
                version = store.head(key).version
                start = rng.randrange(version.size)
                got = read(store, version, ByteRange(start, version.size))
            except (VersionChangedError, ObjectMissingError, StoreError):
                continue
            # What other ETags name was never written in full.
            if version.etag in made:
                assert got == made[version.etag][start:], "bytes of another version"
                right += 1
        return right

    make(1)
    with ThreadPoolExecutor(4) as threads:
        writer = threads.submit(replace_again_and_again)
        try:
            counts = list(threads.map(read_again_and_again, range(3)))
        finally:
            ended.set()
        writer.result()
    assert sum(counts) > 0


def test_what_is_missing_is_missing(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ObjectMissingError):
        store.head(prefix + "a")
    with pytest.raises(ObjectMissingError):
        read(store, ObjectVersion(prefix + "a", "0" * 32, 5))


def test_many_threads_read_at_once(store: ObjectStore, prefix: str) -> None:
    version = put(store, prefix + "a")
    spans = [ByteRange(start, start + 6000) for start in range(0, 294_000, 6000)]
    with ThreadPoolExecutor(16) as pool:
        parts = pool.map(lambda span: read(store, version, span), spans)
        assert b"".join(parts) == SOME[: spans[-1].end]


# -- listing -----------------------------------------------------------------------------------


def test_pages_continue_where_the_last_one_ended(store: ObjectStore, prefix: str) -> None:
    keys = [f"{prefix}{number:02}" for number in range(7)]
    for key in keys:
        put(store, key, b"")
    seen: list[str] = []
    token: str | None = None
    while True:
        page = store.list_page(ListQuery(prefix, delimiter="", max_keys=3, token=token))
        seen += [item.key for item in page.objects]
        token = page.next_token
        if token is None:
            break
    assert seen == keys


def test_a_delimiter_folds_what_lies_deeper(store: ObjectStore, prefix: str) -> None:
    for name in ("a", "d/1", "d/2", "e/f/1"):
        put(store, prefix + name, b"")
    page = store.list_page(ListQuery(prefix))
    assert [item.key for item in page.objects] == [prefix + "a"]
    assert page.prefixes == (prefix + "d/", prefix + "e/")
    flat = store.list_page(ListQuery(prefix, delimiter=""))
    assert [item.key for item in flat.objects] == [
        prefix + name for name in ("a", "d/1", "d/2", "e/f/1")
    ]


def test_the_owner_is_that_of_the_very_key_where_the_store_tells_it(
    store: ObjectStore, prefix: str
) -> None:
    for name in ("b", "bc"):
        store.put(CommitRequest(prefix + name), b"x")
    assert store.owner(prefix + "b")
    assert store.owner(prefix + "nothing") is None
    assert store.owner(prefix) is None


def test_a_listing_can_start_after_a_key(store: ObjectStore, prefix: str) -> None:
    for name in ("a", "b", "c"):
        put(store, prefix + name, b"")
    page = store.list_page(ListQuery(prefix, delimiter="", start_after=prefix + "a"))
    assert [item.key for item in page.objects] == [prefix + "b", prefix + "c"]


@pytest.mark.parametrize("seed", range(4))
def test_ranges_side_by_side_tell_what_one_listing_tells(
    store: ObjectStore, prefix: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large directories are listed so: here one of a few small pages."""
    monkeypatch.setattr(ranges, "_MIN_ENTRIES", 2)
    draw = random.Random(seed)
    counted = [f"f-{number:04}.bin" for number in range(60)]
    drawn = [f"{draw.getrandbits(64):016x}" for _ in range(40)]
    # Directories whose names begin those of others, which some servers have in another order.
    beside = [f"d{number:02}{end}" for number in range(12) for end in ("/x", "-a", ".b", "/y")]
    names = [counted, drawn, beside, [*counted, *drawn, *beside]][seed]
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(lambda name: put(store, prefix + name, b"x"), names))
    shown = sorted({prefix + name.partition("/")[0] + "/" * ("/" in name) for name in names})

    def list_page(query: ListQuery) -> ListPage:
        return store.list_page(replace(query, max_keys=7))

    assert sorted(Reading(list_page, prefix, draw).keys()) == shown


def test_a_listing_of_nothing_is_empty(store: ObjectStore, prefix: str) -> None:
    page = store.list_page(ListQuery(prefix))
    assert (page.objects, page.prefixes, page.next_token) == ((), (), None)


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "a+b",
        "100%",
        "%41",
        "ünïcødé/模型",
        "q?x=1&y#z",
        "<&>\"'",
        "tab\there",
        "~*()!",
    ],
)
def test_any_name_is_written_listed_read_copied_and_removed(
    store: ObjectStore, prefix: str, name: str
) -> None:
    version = put(store, prefix + name, b"content")
    assert [item.key for item in store.list_page(ListQuery(prefix, delimiter="")).objects] == [
        prefix + name
    ]
    assert store.head(prefix + name).version == version
    assert read(store, version) == b"content"
    assert read(store, store.copy(version, prefix + name + "2")) == b"content"
    store.delete(prefix + name)
    with pytest.raises(ObjectMissingError):
        store.head(prefix + name)


# -- writing -----------------------------------------------------------------------------------


def test_bytes_views_and_files_are_sent_alike(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"before" + SOME + b"after")
    with path.open("rb") as file:
        bodies: list[Body] = [SOME, memoryview(SOME), FileSlice(file.fileno(), 6, len(SOME))]
        for number, body in enumerate(bodies):
            version = store.put(CommitRequest(f"{prefix}{number}"), body)
            assert read(store, version) == SOME


@pytest.mark.parametrize("checksum", ["none", "crc32c", "md5"])
def test_every_checksum_is_accepted(
    server: Server, prefix: str, tmp_path: Path, checksum: str
) -> None:
    store = open_store(server.options(tmp_path, checksum=checksum), Metrics())
    assert read(store, put(store, prefix + "a")) == SOME
    upload = store.start_multipart(CommitRequest(prefix + "b"))
    parts = [store.upload_part(upload, 1, PART), store.upload_part(upload, 2, b"end")]
    assert read(store, store.complete(upload, parts, CommitRequest(upload.key))) == PART + b"end"
    store.close()


def test_a_create_happens_once(store: ObjectStore, prefix: str) -> None:
    version = store.put(CommitRequest(prefix + "a", condition=ABSENT), b"first")
    with pytest.raises(ConditionFailedError):
        store.put(CommitRequest(prefix + "a", condition=ABSENT), b"second")
    assert read(store, version) == b"first"


def test_of_many_who_create_at_once_one_succeeds(store: ObjectStore, prefix: str) -> None:
    def create(number: int) -> bool:
        request = CommitRequest(prefix + "a", {"number": str(number)}, condition=ABSENT)
        try:
            store.put(request, bytes([number]) * 1000)
        except ConditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    info = store.head(prefix + "a")
    assert read(store, info.version) == bytes([won.index(True)]) * 1000


def test_a_replacement_happens_only_over_the_known_version(store: ObjectStore, prefix: str) -> None:
    first = put(store, prefix + "a", b"first")
    known = Condition(only_if_etag=first.etag)
    second = store.put(CommitRequest(prefix + "a", condition=known), b"second")
    with pytest.raises(ConditionFailedError):
        store.put(CommitRequest(prefix + "a", condition=known), b"third")
    assert read(store, second) == b"second"


def test_deleting_twice_is_no_error(store: ObjectStore, prefix: str) -> None:
    put(store, prefix + "a")
    store.delete(prefix + "a")
    store.delete(prefix + "a")
    with pytest.raises(ObjectMissingError):
        store.head(prefix + "a")


def test_one_request_removes_many_objects_and_those_that_are_not_there(
    store: ObjectStore, prefix: str
) -> None:
    keys = [prefix + name for name in ("a b", "c+d&e", "f/g", "ünï")]
    for key in keys:
        put(store, key)
    assert store.delete_many([*keys, prefix + "absent"]) == []
    for key in keys:
        with pytest.raises(ObjectMissingError):
            store.head(key)


# -- multipart ---------------------------------------------------------------------------------


def test_parts_in_any_order_make_one_object(store: ObjectStore, prefix: str) -> None:
    upload = store.start_multipart(CommitRequest(prefix + "a", {"mtime": "1.5"}, "text/x-model"))
    third = store.upload_part(upload, 3, b"end")
    store.upload_part(upload, 1, PART)
    second = store.upload_part(upload, 2, PART[::-1])
    first = store.upload_part(upload, 1, PART)  # again: it replaces
    version = store.complete(upload, [third, first, second], CommitRequest(upload.key))
    assert version.size == 2 * MIN_PART_BYTES + 3
    assert read(store, version) == PART + PART[::-1] + b"end"
    info = store.head(prefix + "a")
    assert info.version == version
    assert info.metadata is not None
    assert info.metadata["mtime"] == "1.5"
    assert info.content_type == "text/x-model"


def test_an_aborted_upload_leaves_nothing_and_can_be_aborted_again(
    store: ObjectStore, prefix: str
) -> None:
    upload = store.start_multipart(CommitRequest(prefix + "a"))
    store.upload_part(upload, 1, PART)
    store.abort(upload)
    store.abort(upload)
    with pytest.raises(ObjectMissingError):
        store.head(prefix + "a")


def test_an_aborted_upload_cannot_be_completed(store: ObjectStore, prefix: str) -> None:
    upload = store.start_multipart(CommitRequest(prefix + "a"))
    part = store.upload_part(upload, 1, PART)
    store.abort(upload)
    with pytest.raises(ObjectMissingError):
        store.complete(upload, [part], CommitRequest(upload.key))
    with pytest.raises(ObjectMissingError):
        store.head(prefix + "a")


@pytest.mark.parametrize("condition", [ABSENT, Condition(only_if_etag="0" * 32)], ids=str)
def test_a_completion_obeys_its_condition(
    store: ObjectStore, prefix: str, condition: Condition
) -> None:
    key = f"{prefix}{'new' if condition.only_if_absent else 'old'}"
    old = put(store, key, b"here first")
    upload = store.start_multipart(CommitRequest(key))
    part = store.upload_part(upload, 1, PART)
    with pytest.raises(ConditionFailedError):
        store.complete(upload, [part], CommitRequest(key, condition=condition))
    assert read(store, old) == b"here first"
    store.abort(upload)


def test_parts_are_copied_from_other_objects(
    store: ObjectStore, server: Server, prefix: str
) -> None:
    source = put(store, prefix + "source", PART + SOME)
    upload = store.start_multipart(CommitRequest(prefix + "a"))
    span = ByteRange(7, MIN_PART_BYTES + 7)
    if not store.capabilities().part_copy:
        with pytest.raises(StoreError):
            store.copy_part(upload, 1, source, span)
        return
    parts = [store.copy_part(upload, 1, source, span), store.upload_part(upload, 2, b"new")]
    version = store.complete(upload, parts, CommitRequest(upload.key))
    assert read(store, version) == (PART + SOME)[7 : MIN_PART_BYTES + 7] + b"new"


def test_a_part_of_what_changed_or_went_is_refused(store: ObjectStore, prefix: str) -> None:
    if not store.capabilities().part_copy:
        return  # it is refused anyway, see above
    old = put(store, prefix + "source", PART + SOME)
    upload = store.start_multipart(CommitRequest(prefix + "a"))
    span = ByteRange(0, MIN_PART_BYTES)
    put(store, prefix + "source", SOME + PART)
    with pytest.raises(VersionChangedError):
        store.copy_part(upload, 1, old, span)
    put(store, prefix + "source", b"shorter")
    with pytest.raises(VersionChangedError):
        store.copy_part(upload, 1, old, span)
    store.delete(prefix + "source")
    with pytest.raises(ObjectMissingError):
        store.copy_part(upload, 1, old, span)
    store.abort(upload)


# -- copies ------------------------------------------------------------------------------------


def test_a_copy_keeps_metadata_unless_told_otherwise(store: ObjectStore, prefix: str) -> None:
    source = store.put(CommitRequest(prefix + "a", {"mode": "33188"}, "text/x-model"), SOME)
    copied = store.copy(source, prefix + "b")
    assert read(store, copied) == SOME
    kept = store.head(prefix + "b")
    assert kept.version == copied
    assert (kept.metadata or {})["mode"] == "33188"
    assert kept.content_type == "text/x-model"
    changed = store.copy(source, prefix + "c", metadata={"mode": "33279"}, content_type="a/b")
    info = store.head(prefix + "c")
    assert info.version == changed
    assert (info.metadata or {})["mode"] == "33279"


def test_a_copy_onto_itself_replaces_the_metadata(store: ObjectStore, prefix: str) -> None:
    source = put(store, prefix + "a", SOME, old="1")
    changed = store.copy(source, prefix + "a", metadata={"new": "2"})
    info = store.head(prefix + "a")
    assert info.version == changed
    assert (info.metadata or {}).get("new") == "2"
    assert read(store, changed) == SOME


def test_a_copy_onto_itself_drops_the_old_metadata(store: ObjectStore, prefix: str) -> None:
    source = put(store, prefix + "a", SOME, old="1")
    store.copy(source, prefix + "a", metadata={"new": "2"})
    assert store.head(prefix + "a").metadata == {"new": "2"}


def test_a_copy_of_what_changed_or_went_is_refused(store: ObjectStore, prefix: str) -> None:
    old = put(store, prefix + "a")
    put(store, prefix + "a", b"newer")
    with pytest.raises(VersionChangedError):
        store.copy(old, prefix + "b")
    with pytest.raises(VersionChangedError):
        store.copy(old, prefix + "b", metadata={})
    store.delete(prefix + "a")
    with pytest.raises(ObjectMissingError):
        store.copy(old, prefix + "b")


def test_a_large_object_is_copied_in_parts_with_all_that_describes_it(
    witnessed: Server, tmp_path: Path, prefix: str, minio_client: Minio
) -> None:
    options = witnessed.options(tmp_path)
    small_limit = S3ObjectStore(
        options,
        Metrics(),
        resolve_endpoint(options, None),
        CredentialSource(options, Metrics(), oss_first=False),
        max_copy_bytes=MIN_PART_BYTES,
        copy_part_bytes=MIN_PART_BYTES,
    )
    source = small_limit.put(
        CommitRequest(prefix + "a", {"k": "v"}, "text/x-model"),
        PART + PART + b"end",
    )
    copied = small_limit.copy(source, prefix + "b")
    assert copied.etag.endswith("-3")
    assert read(small_limit, copied) == PART + PART + b"end"
    info = small_limit.head(prefix + "b")
    assert (info.metadata, info.content_type) == ({"k": "v"}, "text/x-model")
    put(small_limit, prefix + "a", PART + PART + b"END")
    with pytest.raises(VersionChangedError):
        small_limit.copy(source, prefix + "c")
    small_limit.close()
    pending = minio_client._list_multipart_uploads(witnessed.bucket, prefix=prefix)
    assert pending.uploads == []


# -- capabilities and mistakes -----------------------------------------------------------------


def test_capabilities_are_found_out_and_nothing_is_left_behind(
    server: Server, tmp_path: Path, prefix: str
) -> None:
    store = open_store(server.options(tmp_path, scratch_prefix=prefix), Metrics())
    assert store.capabilities() == (server.capabilities or store.capabilities())
    assert store.list_page(ListQuery(prefix, delimiter="")).objects == ()
    store.close()


def test_configured_capabilities_cost_no_request(server: Server, tmp_path: Path) -> None:
    metrics = Metrics()
    choices = {"conditional_writes": "on", "part_copy": "off"}
    store = open_store(server.options(tmp_path, **choices), metrics)
    assert store.capabilities() == Capabilities(True, True, False)
    assert [sample for metric in metrics.requests.collect() for sample in metric.samples] == []
    store.close()


def test_check_is_content_with_a_right_mount(store: ObjectStore) -> None:
    store.check("", 8.0)


def test_check_tells_a_missing_bucket(server: Server, tmp_path: Path) -> None:
    store = open_store(server.options(tmp_path, bucket="no-such-bucket"), Metrics())
    with pytest.raises(EnvironmentProblemError, match="there is no bucket 'no-such-bucket'"):
        store.check("", 8.0)
    store.close()


def test_check_tells_wrong_keys_and_forbidden_buckets(
    seaweed: SeaweedServer, witnessed: Server, tmp_path: Path
) -> None:
    outsider = seaweed.identities[OUTSIDER]
    mistakes = [
        ("UNKNOWN", witnessed.secret_key, "does not know this access key id"),
        (witnessed.access_key, "wrong", "the secret key is wrong"),
        (outsider.access_key, outsider.secret_key, "access to the bucket 'contract' is denied"),
    ]
    for access_key, secret_key, expected in mistakes:
        other = Server("other", witnessed.endpoint, access_key, secret_key, ALL)
        store = open_store(other.options(tmp_path), Metrics())
        with pytest.raises(EnvironmentProblemError, match=expected):
            store.check("", 8.0)
        store.close()
