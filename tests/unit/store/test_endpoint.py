"""Where requests go, for what people write as endpoint."""

import pytest

from ossfs_py.errors import UsageError
from ossfs_py.store.options import Addressing, StoreOptions
from ossfs_py.store.s3.endpoint import Endpoint, resolve_endpoint


def resolve(
    endpoint: str | None,
    *,
    bucket: str = "models",
    addressing: Addressing = "auto",
    region: str | None = None,
    configured: str | None = None,
) -> Endpoint:
    options = StoreOptions(bucket, endpoint=endpoint, addressing=addressing, region=region)
    return resolve_endpoint(options, configured)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/models/a"),
        ("http://[::1]:9000/", "http://[::1]:9000/models/a"),
        ("minio.example.org", "https://minio.example.org/models/a"),
        ("https://minio.example.org:443", "https://minio.example.org/models/a"),
        (None, "https://models.s3.us-east-1.amazonaws.com/a"),
        ("s3.eu-west-1.amazonaws.com", "https://models.s3.eu-west-1.amazonaws.com/a"),
        (
            "oss-cn-hangzhou.aliyuncs.com",
            "https://models.s3.oss-cn-hangzhou.aliyuncs.com/a",
        ),
        (
            "http://s3.oss-cn-beijing-internal.aliyuncs.com",
            "http://models.s3.oss-cn-beijing-internal.aliyuncs.com/a",
        ),
        (
            "models.oss-cn-hangzhou.aliyuncs.com",
            "https://models.s3.oss-cn-hangzhou.aliyuncs.com/a",
        ),
    ],
)
def test_auto_addressing_reaches_the_bucket(endpoint: str | None, url: str) -> None:
    found = resolve(endpoint)
    assert f"{found.scheme}://{found.host_header}{found.path_of('a')}" == url


def test_addressing_can_be_forced() -> None:
    assert resolve("http://store:1", addressing="virtual").host_header == "models.store:1"
    assert resolve(None, addressing="path").path_of("a") == "/models/a"


def test_a_dotted_bucket_stays_out_of_the_host_name_over_tls() -> None:
    assert not resolve(None, bucket="my.models").virtual


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        ("s3.oss-ap-southeast-1-internal.aliyuncs.com", "ap-southeast-1"),
        ("cn-shanghai.oss.aliyuncs.com", "cn-shanghai"),
        ("s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("http://127.0.0.1:9000", "us-east-1"),
        ("oss-accelerate.aliyuncs.com", "us-east-1"),
    ],
)
def test_the_region_is_read_off_the_host(endpoint: str, region: str) -> None:
    assert resolve(endpoint).region == region


def test_a_given_region_goes_before_the_host_and_the_host_before_the_profile() -> None:
    oss = "oss-cn-hangzhou.aliyuncs.com"
    assert resolve(oss, region="cn-beijing", configured="eu-west-1").region == "cn-beijing"
    assert resolve(oss, configured="eu-west-1").region == "cn-hangzhou"
    assert resolve("http://127.0.0.1:1", configured="eu-west-1").region == "eu-west-1"
    assert resolve(None, configured="cn-north-1").host == "s3.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://host", "http://", "http://host/bucket", "http://host?x=1", "http://host:port"],
)
def test_what_is_no_endpoint_is_a_usage_error(endpoint: str) -> None:
    with pytest.raises(UsageError, match="endpoint"):
        resolve(endpoint)


def test_a_password_in_the_endpoint_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("http://me:sesame@host")
    assert "sesame" not in str(caught.value)


def test_keys_are_percent_encoded_as_signatures_want_it() -> None:
    found = resolve("http://127.0.0.1:1")
    assert found.path_of("a b+c/é~(1).x") == "/models/a%20b%2Bc/%C3%A9~%281%29.x"
    assert found.path_of("") == "/models"
    assert found.path_of("no\udcffutf8") == "/models/no%FFutf8"
