"""The rules of the house, read from the source: who may import whom, and what stands where."""

import ast
import errno
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ossfs_py
from ossfs_py import errors

PACKAGE = Path(ossfs_py.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]
ROOMS = {name.split("/")[0].removesuffix(".py") for name in NAMES}
MAX_LINES = 600

FOUNDATION = {"errors", "extents", "model"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "extents": {"model"},
    "host": FOUNDATION,
    "telemetry": FOUNDATION | {"host"},
    "runtime": FOUNDATION | {"telemetry"},
    "store": FOUNDATION | {"telemetry"},
    "foresight": {"errors", "extents", "model"},
    "reading": FOUNDATION | {"foresight", "runtime", "store", "telemetry"},
    "sharedcache": FOUNDATION | {"reading", "runtime", "store"},
    "writing": FOUNDATION | {"runtime", "store", "telemetry"},
    "namespace": FOUNDATION | {"runtime", "store", "telemetry"},
    "datapath": FOUNDATION | {"reading", "runtime", "store", "telemetry", "writing"},
    "filesystem": FOUNDATION
    | {"datapath", "foresight", "namespace"}
    | {"reading", "runtime", "store", "telemetry", "writing"},
    "fuse": FOUNDATION | {"filesystem", "host", "runtime", "telemetry"},
    "control": FOUNDATION | {"datapath", "filesystem", "host", "runtime", "store", "telemetry"},
    "bench": FOUNDATION | {"control"},
    "doctor": FOUNDATION | {"control", "host", "sharedcache", "store", "telemetry"},
    "config": FOUNDATION | {"sharedcache", "telemetry"},
    "daemon": FOUNDATION
    | {"config", "control", "datapath", "filesystem", "fuse", "host", "namespace"}
    | {"reading", "runtime", "sharedcache", "store", "telemetry", "writing"},
    "demo": FOUNDATION | {"host"},
    "cli": FOUNDATION
    | {
        "bench",
        "config",
        "control",
        "daemon",
        "demo",
        "doctor",
        "host",
        "store",
        "telemetry",
        "writing",
    },
}
"""Rooms, lowest first, to the rooms each may import; a room may always import itself."""

TOP = {"__init__", "__main__"}

CONFINED = {
    "pyfuse3": {"fuse"},
    "boto3": {"store"},
    "botocore": {"store"},
    "awscrt": {"store"},
    "click": {"cli"},
    "rich": {"cli", "demo"},
}
"""Foreign packages that only some layers know."""

ISOLATED = {
    "store/http": (set(sys.stdlib_module_names), {"errors", "store.http"}),
    "store/auth": (None, {"errors", "store.auth", "store.options", "telemetry"}),
}
"""Folders that know less than their room: the foreign packages (None: any) and the own modules
that each may import."""

IMPLEMENTATIONS = {"datapath.temp", "datapath.cache", "datapath.direct"}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Full dotted names, imports inside functions and for type checking included."""
    package = [ossfs_py.__name__, *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def shared_by_tests(path: Path) -> Iterator[list[str]]:
    """Modules of the tests that one of them imports, in parts. Parsing all tests takes seconds."""
    for name in re.findall(r"^\s*from tests\.([\w.]+) import", path.read_text(), re.MULTILINE):
        yield name.split(".")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_go_downwards_only(path: Path) -> None:
    layer = layer_of(path)
    allowed = {"cli"} if layer in TOP else MAY_IMPORT[layer] | {layer}
    own = [name.split(".") for name in imports_of(path) if name.split(".")[0] == "ossfs_py"]
    reached = {parts[1] for parts in own if len(parts) > 1 and parts[1] in ROOMS}
    assert reached <= allowed, f"{layer} must not import {sorted(reached - allowed)}"


def test_every_room_is_in_the_table_and_none_lies_above_what_it_serves() -> None:
    assert set(MAY_IMPORT) == ROOMS - TOP
    order = list(MAY_IMPORT)
    for position, (room, below) in enumerate(MAY_IMPORT.items()):
        assert below <= set(order[:position]), f"{room} may import what lies above it"


def test_no_two_classes_share_a_name() -> None:
    found: dict[str, list[str]] = {}
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert not {name: places for name, places in found.items() if len(places) > 1}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py"], ids=lambda p: p.parent.name
)
def test_every_room_says_what_lives_there(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_foreign_packages_stay_where_they_belong(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    for package, layers in CONFINED.items():
        assert package not in roots or layer_of(path) in layers, f"{package} does not belong here"


@pytest.mark.parametrize("folder", ISOLATED)
def test_folders_that_know_less_than_their_room(folder: str) -> None:
    foreign, own = ISOLATED[folder]
    paths = [path for path in MODULES if path.is_relative_to(PACKAGE / folder)]
    names = {name for path in paths for name in imports_of(path)}
    ours = {name.removeprefix("ossfs_py.") for name in names if name.startswith("ossfs_py.")}
    assert ours
    assert not [name for name in ours if not any(f"{name}.".startswith(f"{o}.") for o in own)]
    roots = {name.split(".")[0] for name in names} - {"ossfs_py"}
    assert foreign is None or roots <= foreign


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_errno_literals_stand_in_the_table_only(path: Path) -> None:
    if path.name == "errors.py":
        return
    codes = set(errno.errorcode.values())
    found = {
        node.attr
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in codes
    } | {name.split(".")[1] for name in imports_of(path) if name.startswith("errno.")} & codes
    assert not found, f"errno literals outside errors.py: {sorted(found)}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_environment_and_arguments_are_read_in_config_and_cli_only(path: Path) -> None:
    # The store reads the credentials chain, whose environment variables are the credentials'
    # own and no settings of the mount.
    allowed = {"config", "cli", "demo"} | ({"store"} if path.parent.name == "auth" else set())
    if layer_of(path) in allowed:
        return
    names = {f"{module}.{attribute}" for module, attribute in attributes_of(path)}
    names |= set(imports_of(path))
    assert not names & {"os.environ", "os.environb", "os.getenv", "sys.argv"}


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_only_the_command_line_prints(path: Path) -> None:
    if layer_of(path) in {"cli", "demo"}:
        return
    calls = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert not [name for name in calls if isinstance(name, ast.Name) and name.id == "print"]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_data_paths_do_not_know_one_another() -> None:
    for path in MODULES:
        own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        implementation = next(
            (name for name in IMPLEMENTATIONS if own == name or own.startswith(f"{name}.")), None
        )
        if implementation is None:
            continue
        reached = {name.removeprefix("ossfs_py.") for name in imports_of(path)}
        for other in IMPLEMENTATIONS - {implementation}:
            assert not [name for name in reached if f"{name}.".startswith(f"{other}.")]


def attributes_of(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


def test_what_several_tests_share_lives_in_support() -> None:
    tests = Path(__file__).parent
    upside_down = []
    for path in tests.rglob("*.py"):
        room = path.relative_to(tests).parts[0]
        allowed = (
            {"support"} if room in ("support", "conftest.py") else {"support", "conftest", room}
        )
        upside_down += [
            f"{path.relative_to(tests)} imports {'.'.join(parts)}"
            for parts in shared_by_tests(path)
            if parts[0] not in allowed or parts[-1].startswith("test_")
        ]
    assert not upside_down


# -- the errno table, both ways ------------------------------------------------------------


def subclasses_of(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses_of(child)


def test_every_error_a_program_can_meet_has_a_row() -> None:
    causes = [row.cause for row in errors.ERRNO_TABLE]
    for root in (errors.StoreError, errors.FilesystemError):
        for cls in subclasses_of(root):
            if cls.__module__.startswith("ossfs_py."):
                assert any(issubclass(cls, cause) for cause in causes), cls


def test_no_row_is_dead_or_doubled() -> None:
    causes = [row.cause for row in errors.ERRNO_TABLE]
    assert len(causes) == len(set(causes))
    defined = {cls for _, cls in inspect.getmembers(errors, inspect.isclass)}
    assert set(causes) <= defined


def test_every_row_is_what_errno_of_answers() -> None:
    for row in errors.ERRNO_TABLE:
        assert errors.errno_of(row.cause("why")) == row.code


@pytest.mark.parametrize(
    ("cause", "seen"),
    [
        (errors.ObjectMissingError("no such key"), errno.ENOENT),
        (errors.BucketMissingError("bucket gone"), errno.ENOENT),
        (errors.ListingFailedError("bucket gone, while it is listed"), errno.EIO),
        (errors.AccessDeniedError("denied"), errno.EACCES),
        (errors.ArchivedError("not restored"), errno.EACCES),
        (errors.RetainedError("locked"), errno.EPERM),
        (errors.VersionChangedError("changed under a reader"), errno.ESTALE),
        (errors.ReadOnlyError("read-only mount"), errno.EROFS),
        (OSError(errno.ENOSPC, "disk full"), errno.ENOSPC),
        (errors.QuotaExceededError("quota at the store"), errno.EDQUOT),
        (errors.ObjectTooLargeError("too large"), errno.EFBIG),
        (errors.FileTooLargeError("too large"), errno.EFBIG),
        (errors.StoreUnavailableError("retries exhausted"), errno.EIO),
        (ValueError("a programming error"), errno.EIO),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_programs_see_what_the_contract_promises(cause: Exception, seen: int) -> None:
    assert errors.errno_of(cause) == seen
