"""The demonstration, small, with and without torch."""

import io
import sys
from importlib.util import find_spec

import pytest
from rich.console import Console

from ossfs_py.demo.demonstration import WITHOUT_TORCH, run_demo

MODEL_BYTES = 4 * 1024**2


def shown() -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=120)
    assert run_demo(data_paths=("direct",), model_bytes=MODEL_BYTES, console=console) == 0
    return out.getvalue().splitlines()


def test_the_demonstration_loads_everything_that_is_there() -> None:
    lines = shown()
    assert any("safetensors, every tensor" in line for line in lines)
    assert any("torch.load, mmap" in line for line in lines) == bool(find_spec("torch"))
    assert "Every tensor and every file equals its original, over every data path." in lines


def test_without_torch_the_demonstration_tells_how_to_see_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    *_, first, last = shown()
    assert first.startswith("Every tensor and every file equals its original")
    assert last == WITHOUT_TORCH
