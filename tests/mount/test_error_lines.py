"""What the log says of a program that fails: once, with its cause."""

import errno

from minio import Minio

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.faults import Fault
from tests.support.proxy import Proxy
from tests.support.workplace import Workplace


def test_a_read_that_fails_is_one_error_in_the_log(
    mount: MountFactory, proxy: Proxy, bucket: str, data_path: str, minio_client: Minio
) -> None:
    """The kernel asks twice: once to read ahead, once for the page that is waited for."""
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    place = Workplace.make(mounted, minio_client, mounted.path)
    place.put("f", b"x" * 3_000_000)
    fault = Fault(operation="GetObject", times=None, status=403, code="AccessDenied")
    proxy.faults = [fault]
    for count in (1, 2):
        with refused(errno.EACCES):
            (place.path / "f").read_bytes()
        errors = [line for line in mounted.log.splitlines() if "ERROR" in line]
        assert len(errors) == count, errors
        assert "f' failed" in errors[-1]
        assert "GetObject" in errors[-1]
    proxy.faults = []
    assert (place.path / "f").read_bytes() == b"x" * 3_000_000
