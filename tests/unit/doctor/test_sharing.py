"""What doctor says of the nodes of a shared cache."""

import socket
import threading
from pathlib import Path

from ossfs_py.doctor.findings import Finding, Status
from ossfs_py.doctor.sharing import check_shared_cache
from tests.support.memcached import Memcached, free_port


def found(described: str) -> list[Finding]:
    return list(check_shared_cache(described))


def test_a_good_node_is_told_with_version_memory_and_evictions() -> None:
    with Memcached("-m", "64", "-I", "4m") as node:
        (finding,) = found(node.address)
    assert finding.status is Status.GOOD
    assert finding.told.startswith(f"{node.address}: memcached 1.")
    assert finding.told.endswith("0 of 64 MiB used, 0 evictions, items up to 4194304 bytes")


def test_a_node_of_small_items_is_a_warning() -> None:
    with Memcached("-m", "64") as node:
        (finding,) = found(node.address)
    assert finding.status is Status.WARNING
    assert "-I 4m" in finding.fix


def test_a_full_node_is_a_warning() -> None:
    with Memcached("-m", "16", "-I", "4m") as node:
        for number in range(40):
            node.put(b"key-%d" % number, bytes(1 << 20))
        (finding,) = found(node.address)
    assert finding.status is Status.WARNING
    assert "more memory" in finding.fix


def test_each_node_that_is_missing_fails_by_itself() -> None:
    with Memcached("-m", "64", "-I", "4m") as node:
        port = free_port()
        findings = {
            each.told.split(": ")[0]: each.status
            for each in found(f"{node.address},127.0.0.1:{port}")
        }
    assert findings == {node.address: Status.GOOD, f"127.0.0.1:{port}": Status.FAILED}


def test_a_port_where_something_else_answers_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (finding,) = found(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert finding.status is Status.FAILED
    assert "not memcached" in finding.told


def test_nodes_that_cannot_be_told_fail(tmp_path: Path) -> None:
    (finding,) = found(f"file:{tmp_path / 'none'}")
    assert finding.status is Status.FAILED
    (tmp_path / "empty").touch()
    (finding,) = found(f"file:{tmp_path / 'empty'}")
    assert finding.status is Status.WARNING
