"""The stack of every task, to find out what a mount waits for."""

from collections.abc import Iterator

import trio


def describe_tasks() -> str:
    """The tree of trio's tasks, each with the places it waits at. On the trio thread."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_lines(root, 1)) if root is not None else ""


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{task.name}"
    for frame, line in task.iter_await_frames():
        code = getattr(frame, "f_code", None)
        if code is not None:
            yield f"{indent}  {code.co_filename}:{line} {code.co_name}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, depth + 1)
