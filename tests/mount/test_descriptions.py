"""What describes an object beside its bytes stays, whatever a program does to the file.

Checked by boto3 on two servers; what one of them cannot keep is a line of its own below.
"""

import datetime as dt
import io
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from minio import Minio
from moto.server import ThreadedMotoServer

from tests.conftest import MountFactory, make_bucket
from tests.support.chosen import chosen_server
from tests.support.commands import ossfs
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer
from tests.support.servers.deviations import ENCRYPTION, NOT_KEPT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024**2
EVERYBODY = "http://acs.amazonaws.com/groups/global/AllUsers"
SAID = {
    "ContentType": "text/x-own",
    "CacheControl": "max-age=60",
    "ContentEncoding": "gzip",
    "Expires": dt.datetime(2031, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    "ContentLanguage": "de",
    "ContentDisposition": "inline",
    "StorageClass": "STANDARD_IA",
    "ServerSideEncryption": "AES256",
    "WebsiteRedirectLocation": "/there",
}
OWN = {"own": "a value of another program"}
TAGS = {"team": "a", "what for": "b + c/=d"}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Server:
    """A running server, and a client of it that shares no code with the package."""

    name: str
    endpoint: str
    client: "S3Client"
    new_bucket: Callable[[], str]

    @property
    def said(self) -> dict[str, Any]:
        """What objects are described by, as far as it can hold that."""
        said = SAID | ENCRYPTION.get(self.name, {})
        return {name: value for name, value in said.items() if self.keeps(name)}

    def keeps(self, what: str) -> bool:
        """Whether it can hold this of what describes an object."""
        return what not in NOT_KEPT.get(self.name, {})


def client_of(endpoint: str, access_key: str, secret_key: str) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = client_of(endpoint, "MOTO", "moto-secret")

    def new_bucket() -> str:
        name = f"described-{next(_numbers)}"
        client.create_bucket(Bucket=name)
        return name

    yield Server("moto", endpoint, client, new_bucket)
    server.stop()


@pytest.fixture(scope="module")
def seaweedfs(seaweed: SeaweedServer) -> Server:
    client = client_of(seaweed.endpoint, seaweed.access_key, seaweed.secret_key)
    name = chosen_server() or "seaweedfs"
    return Server(name, seaweed.endpoint, client, lambda: make_bucket(seaweed))


@pytest.fixture(params=[chosen_server()] if chosen_server() else ["seaweedfs", "moto"])
def server(request: pytest.FixtureRequest) -> Server:
    # What is known of a server is found by the parameter.
    found: Server = request.getfixturevalue("seaweedfs" if chosen_server() else request.param)
    return found


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")


def append_twice(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")
        file.flush()
        os.fsync(file.fileno())
        file.write(b"and more")


def move(path: Path) -> None:
    path.rename(path.with_name("moved.bin")).rename(path)


def change_open_and_moved(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"changed")
        path.rename(path.with_name("other.bin")).rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwrite": lambda path: path.write_bytes(b"new"),
    "overwrite large": lambda path: path.write_bytes(bytes(20 * MIB)),
    "append": append,
    "append twice": append_twice,
    "change": change,
    "truncate": lambda path: os.truncate(path, 50),
    "grow": lambda path: os.truncate(path, 13 * MIB),
    "chmod": lambda path: path.chmod(0o600),
    "touch": lambda path: os.utime(path, (1, 1)),
    "xattr": lambda path: os.setxattr(path, "user.own", b"value"),
    "mv": move,
    "change open and moved": change_open_and_moved,
}


def put(server: Server, bucket: str, key: str, size: int, **more: Any) -> None:
    """An object with all that can be said; of several parts if it is large."""
    client, body = server.client, os.urandom(size)
    tagging = "team=a&what%20for=b%20%2B%20c%2F%3Dd"
    said = server.said | {"Metadata": OWN, "Tagging": tagging} | more
    said = {name: value for name, value in said.items() if server.keeps(name)}
    if size <= 8 * MIB:
        client.put_object(Bucket=bucket, Key=key, Body=body, **said)
        return
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, **said)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, size, 6 * MIB), 1):
        part = client.upload_part(
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=body[start : start + 6 * MIB],
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    if server.keeps("Tagging"):  # Ceph forgets those that an upload was begun with
        tags = [{"Key": name, "Value": value} for name, value in TAGS.items()]
        client.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": tags})  # type: ignore[typeddict-item]


def told(server: Server, bucket: str, key: str) -> dict[str, Any]:
    head: dict[str, Any] = dict(server.client.head_object(Bucket=bucket, Key=key))
    found = {name: head.get(name) for name in server.said}
    # Names of headers, which some servers capitalise.
    metadata = {name.lower(): value for name, value in head["Metadata"].items()}
    found["own"] = {name: metadata.get(name) for name in OWN}
    if server.keeps("Tagging"):
        tags = server.client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        found["tags"] = {tag["Key"]: tag["Value"] for tag in tags}
    return found


def expected(server: Server) -> dict[str, Any]:
    said = server.said | {"own": OWN}
    return {**said, "tags": TAGS} if server.keeps("Tagging") else said


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_a_changed_object_keeps_what_describes_it(
    mount: MountFactory, server: Server, data_path: str, size: int
) -> None:
    bucket = server.new_bucket()
    mounted = mount(bucket, endpoint=server.endpoint, data_path=data_path)
    for name in CHANGES:
        put(server, bucket, name, size)
    for name, act in CHANGES.items():
        act(mounted.path / name)
    after = {name: told(server, bucket, name) for name in CHANGES}
    assert after == dict.fromkeys(CHANGES, expected(server))


def test_a_copy_that_the_store_makes_has_what_describes_its_source(
    mount: MountFactory, server: Server
) -> None:
    bucket = server.new_bucket()
    mounted = mount(bucket, endpoint=server.endpoint, data_path="direct")
    sizes = {"small": 1000, "large": 12 * MIB}
    for name, size in sizes.items():
        put(server, bucket, name, size)
        source, target = mounted.path / name, mounted.path / f"{name} copy"
        done = ossfs("cp", source, target, environment={})
        assert done.code == 0, done.err
    for name, size in sizes.items():
        assert told(server, bucket, f"{name} copy") == expected(server), name
        assert (mounted.path / f"{name} copy").stat().st_size == size


def test_a_renamed_directory_keeps_what_describes_its_objects(
    mount: MountFactory, server: Server
) -> None:
    bucket = server.new_bucket()
    mounted = mount(bucket, endpoint=server.endpoint, posix_metadata=True)
    for key in ("old/small", "old/below/large"):
        put(server, bucket, key, 12 * MIB if "large" in key else 10)
    (mounted.path / "old").rename(mounted.path / "new")
    for key in ("new/small", "new/below/large"):
        assert told(server, bucket, key) == expected(server), key


def test_a_renamed_directory_keeps_what_listings_tell_without_asking_each_object(
    mount: MountFactory, server: Server
) -> None:
    """Storage class, type, headers and tags; encryption is that of the bucket."""
    bucket = server.new_bucket()
    mounted = mount(bucket, endpoint=server.endpoint)
    put(server, bucket, "old/file", 10)
    (mounted.path / "old").rename(mounted.path / "new")
    after = told(server, bucket, "new/file")
    asked = {"ServerSideEncryption", "WebsiteRedirectLocation"}
    for name, value in expected(server).items():
        assert name in asked or after[name] == value, name


def test_new_files_get_the_configured_class_and_changed_ones_keep_theirs(
    mount: MountFactory, server: Server
) -> None:
    bucket = server.new_bucket()
    for key, known in (("old", "REDUCED_REDUNDANCY"), ("plain", "STANDARD")):
        server.client.put_object(Bucket=bucket, Key=key, Body=b"x", StorageClass=known)  # type: ignore[arg-type]
    mounted = mount(bucket, endpoint=server.endpoint, storage_class="STANDARD_IA")
    for name in ("new", "old", "plain"):
        append_twice(mounted.path / name)
        (mounted.path / name).chmod(0o600)
    found = {
        key: server.client.head_object(Bucket=bucket, Key=key).get("StorageClass", "STANDARD")
        for key in ("new", "old", "plain")
    }
    assert found == {"new": "STANDARD_IA", "old": "REDUCED_REDUNDANCY", "plain": "STANDARD"}


def test_new_bytes_are_not_put_where_they_cannot_be_read(mount: MountFactory, moto: Server) -> None:
    """An archived object that is written anew is read by the next program, not tomorrow's."""
    bucket = moto.new_bucket()
    put(moto, bucket, "archived", 10, StorageClass="GLACIER")
    mounted = mount(bucket, endpoint=moto.endpoint)
    (mounted.path / "archived").write_bytes(b"new")
    assert (mounted.path / "archived").read_bytes() == b"new"
    assert told(moto, bucket, "archived")["StorageClass"] is None


def test_objects_of_which_nothing_is_to_be_kept_cost_no_question(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    for name in ("first", "moded", "rewritten"):
        minio_client.put_object(bucket, name, io.BytesIO(b"x"), 1)
    mounted = mount(bucket, endpoint=proxy.endpoint)
    assert len(list(mounted.path.iterdir())) == 3
    # Whether a HEAD tells of tags is tried once a day, with the first file that is written anew.
    (mounted.path / "first").write_bytes(b"new")
    acts: dict[str, tuple[Callable[[Path], object], dict[str, int]]] = {
        "moded": (lambda path: path.chmod(0o600), {"HeadObject": 1, "CopyObject": 1}),
        "rewritten": (lambda path: path.write_bytes(b"new"), {"HeadObject": 1, "PutObject": 1}),
    }
    for name, (act, asked) in acts.items():
        proxy.reset()
        act(mounted.path / name)
        assert dict(proxy.counts()) == asked, name


def grants(server: Server, bucket: str, key: str) -> list[tuple[str, str]]:
    listed = server.client.get_object_acl(Bucket=bucket, Key=key)["Grants"]
    return [(g["Grantee"].get("URI", "somebody"), g["Permission"]) for g in listed]


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_access_rights_are_kept_where_that_is_asked_for(
    mount: MountFactory, moto: Server, size: int
) -> None:
    bucket = moto.new_bucket()
    mounted = mount(bucket, endpoint=moto.endpoint, acl="keep")
    for name in CHANGES:
        put(moto, bucket, name, size, ACL="public-read")
    before = grants(moto, bucket, "append")
    assert (EVERYBODY, "READ") in before
    for name, act in CHANGES.items():
        act(mounted.path / name)
    for name in CHANGES:
        assert sorted(grants(moto, bucket, name)) == sorted(before), name


def test_a_canned_acl_is_that_of_everything_written(mount: MountFactory, moto: Server) -> None:
    bucket = moto.new_bucket()
    put(moto, bucket, "changed", 10)
    mounted = mount(bucket, endpoint=moto.endpoint, acl="public-read")
    (mounted.path / "new").write_bytes(b"x")
    (mounted.path / "large").write_bytes(bytes(20 * MIB))
    append(mounted.path / "changed")
    (mounted.path / "moved").write_bytes(b"x")
    move(mounted.path / "moved")
    for name in ("new", "large", "changed", "moved"):
        assert (EVERYBODY, "READ") in grants(moto, bucket, name), name


def test_all_that_is_written_is_encrypted_as_configured(mount: MountFactory, moto: Server) -> None:
    bucket = moto.new_bucket()
    put(moto, bucket, "changed", 10)
    mounted = mount(bucket, endpoint=moto.endpoint, sse="aws:kms", sse_kms_key_id="alias/own")
    (mounted.path / "new").write_bytes(b"x")
    (mounted.path / "large").write_bytes(bytes(20 * MIB))
    append(mounted.path / "changed")
    (mounted.path / "moved").write_bytes(b"x")
    move(mounted.path / "moved")
    (mounted.path / "directory").mkdir()
    for name in ("new", "large", "changed", "moved", "directory/"):
        head = moto.client.head_object(Bucket=bucket, Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/own"), name


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(b"0123456789abcdef0123456789abcdef")
    return path


def test_objects_are_written_and_read_with_the_customers_key(
    mount: MountFactory, seaweedfs: Server, key_file: Path, data_path: str
) -> None:
    bucket = seaweedfs.new_bucket()
    key: dict[str, Any] = {
        "SSECustomerAlgorithm": "AES256",
        "SSECustomerKey": key_file.read_bytes().decode(),
    }
    seaweedfs.client.put_object(Bucket=bucket, Key="theirs", Body=b"before", **key)
    body = os.urandom(20 * MIB)

    def mounted() -> Mount:
        return mount(
            bucket, endpoint=seaweedfs.endpoint, data_path=data_path, sse_key_file=key_file
        )

    one = mounted()
    assert (one.path / "theirs").read_bytes() == b"before"
    append(one.path / "theirs")
    (one.path / "large").write_bytes(body)
    change(one.path / "large")
    (one.path / "small").write_bytes(b"small")
    move(one.path / "small")
    (one.path / "small").chmod(0o600)
    assert one.unmount() == 0
    wanted = {
        "theirs": b"beforemore",
        "small": b"small",
        "large": body[:100] + b"changed" + body[107:],
    }
    for name, content in wanted.items():
        answer = seaweedfs.client.get_object(Bucket=bucket, Key=name, **key)
        assert answer["Body"].read() == content, name
        with pytest.raises(seaweedfs.client.exceptions.ClientError):
            seaweedfs.client.head_object(Bucket=bucket, Key=name)
    again = mounted()
    assert {name: (again.path / name).read_bytes() for name in wanted} == wanted
    assert key["SSECustomerKey"] not in again.log


def test_an_object_with_somebody_elses_key_hides_nobody(
    mount: MountFactory, seaweedfs: Server, key_file: Path
) -> None:
    """The store answers HEAD with 400, and a listing asks about empty files."""
    bucket = seaweedfs.new_bucket()
    for name, body in (("locked", b"secret"), ("locked empty", b"")):
        seaweedfs.client.put_object(
            Bucket=bucket,
            Key=name,
            Body=body,
            SSECustomerAlgorithm="AES256",
            SSECustomerKey=key_file.read_bytes().decode(),
        )
    seaweedfs.client.put_object(Bucket=bucket, Key="open", Body=b"content")
    names = ["locked", "locked empty", "open"]
    for options in ({}, {"posix_metadata": True}):
        mounted = mount(bucket, endpoint=seaweedfs.endpoint, **options)
        assert sorted(p.name for p in mounted.path.iterdir()) == names
        assert (mounted.path / "open").read_bytes() == b"content"
        with pytest.raises(PermissionError):
            (mounted.path / "locked").read_bytes()


def test_who_owns_an_object_is_an_attribute(mount: MountFactory, seaweedfs: Server) -> None:
    bucket = seaweedfs.new_bucket()
    mounted = mount(bucket, endpoint=seaweedfs.endpoint)
    (mounted.path / "file").write_bytes(b"x")
    listed = seaweedfs.client.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    owner = listed[0]["Owner"]
    known = os.getxattr(mounted.path / "file", "user.ossfs.owner").decode()
    assert known == (owner.get("DisplayName") or owner["ID"])


def test_the_version_of_a_file_just_written_is_known(mount: MountFactory, server: Server) -> None:
    bucket = server.new_bucket()
    server.client.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    mounted = mount(bucket, endpoint=server.endpoint)
    for content in (b"first", b"second"):
        (mounted.path / "file").write_bytes(content)
        known = os.getxattr(mounted.path / "file", "user.ossfs.version-id").decode()
        assert known == server.client.head_object(Bucket=bucket, Key="file")["VersionId"]


@pytest.mark.parametrize(
    ("name", "expected_type"),
    [
        ("page.css", "text/css"),
        ("model.safetensors", "application/octet-stream"),
        ("table.parquet", "application/vnd.apache.parquet"),
        ("page.css.gz", "application/gzip"),
    ],
)
def test_a_new_file_has_the_type_that_its_name_tells(
    mount: MountFactory, bucket: str, minio_client: Minio, name: str, expected_type: str
) -> None:
    mounted = mount(bucket)
    (mounted.path / name).write_bytes(b"x")
    assert minio_client.stat_object(bucket, name).content_type == expected_type
