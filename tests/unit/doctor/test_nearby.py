"""What doctor says of the read endpoint."""

from ossfs_py.doctor.findings import Status
from ossfs_py.doctor.nearby import check_read_endpoint
from ossfs_py.store.options import StoreOptions
from tests.support.memcached import free_port
from tests.support.scripted_server import ScriptedServer, reply

PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def options(url: str) -> StoreOptions:
    return StoreOptions("bucket", "http://store", url, region="us-east-1", anonymous=True)


def test_one_that_has_the_bucket_is_good() -> None:
    with ScriptedServer([[[reply(200, PAGE)]]]) as near:
        finding = check_read_endpoint(options(near.url))
    assert (finding.status, finding.told) == (Status.GOOD, f"{near.url} has the bucket, too")


def test_one_where_nobody_listens_is_a_warning_as_reads_go_on() -> None:
    finding = check_read_endpoint(options(f"http://127.0.0.1:{free_port()}"))
    assert finding.status is Status.WARNING
    assert finding.fix == "reads go to the store itself while it fails"
