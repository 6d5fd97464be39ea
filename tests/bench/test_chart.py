"""The picture of a benchmark is drawn whatever the results look like."""

import struct
from pathlib import Path
from typing import Any

from tests.bench.chart import draw

PNG = b"\x89PNG\r\n\x1a\n"


def document(*results: tuple[str, str, list[float], str]) -> dict[str, Any]:
    """What ``tests.bench.peers`` writes, from (work, peer, seconds, failure)."""
    names = ("work", "peer", "seconds", "failure")
    rows = [{**dict(zip(names, one, strict=True)), "remark": "early"} for one in results]
    return {
        "time": "2026-01-02T03:04:05+00:00",
        "store": "seaweedfs",
        "ttfb_ms": 25.0,
        "mbps": 90.0,
        "sizes": {"model_bytes": 2**30},
        "results": rows,
    }


def height(path: Path) -> int:
    """Of a PNG, in pixels."""
    content = path.read_bytes()
    assert content.startswith(PNG)
    return int(struct.unpack(">I", content[20:24])[0])


def test_each_work_of_the_yardstick_gets_its_bars(tmp_path: Path) -> None:
    one = [
        ("walk", "ours direct", [0.1, 0.2, 0.3], ""),
        ("walk", "s3fs", [2.0, 2.0, 2.5], ""),
        ("walk", "rclone", [], "> 120 s"),
        ("walk", "another", [200.0], ""),
    ]
    more = [("read", "ours direct", [0.1], ""), ("read", "s3fs", [0.001], "")]
    failed = [("write", "ours direct", [0.1], ""), ("write", "s3fs", [], "died")]
    assert draw(document(*one), tmp_path / "one.png")
    assert draw(document(*one, *more), tmp_path / "two.png")
    assert draw(document(*one, *more, *failed), tmp_path / "three.png")
    assert height(tmp_path / "one.png") < height(tmp_path / "two.png")
    assert height(tmp_path / "three.png") == height(tmp_path / "two.png")


def test_without_a_yardstick_nothing_is_drawn(tmp_path: Path) -> None:
    assert not draw(document(("walk", "ours direct", [1.0], "")), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
