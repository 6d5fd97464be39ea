"""The pages of documentation lead where they say, and name what there is."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ossfs_py.config import BadOptionsError, CommandLine, load
from ossfs_py.config.foreign_names import FOREIGN_NAMES, OSSFS
from ossfs_py.sharedcache.metrics import SharedCacheMetrics
from ossfs_py.telemetry.metrics import Metrics
from tests.support.pages import README, ROOT, anchors, blocks, every_page, links, name_of

DOCS = ROOT / "ossfs_py" / "docs"
PAGES = every_page()
GUIDE = [page for page in PAGES if page == README or page.parent == DOCS]
"""What users are told first; the other pages name options of the past, too."""
OF_OTHER_PROGRAMS = {
    "--disable-mmap",
    "--no-mmap",
    "--numa",
    "--safetensors-load-strategy",
    "--vfs-write-back",
    "--weight-loader-disable-mmap",
    "--works",  # of make bench
}


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "ossfs_py", *arguments]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=wide).stdout


def told_by(pages: list[Path]) -> str:
    return "\n".join(page.read_text() for page in pages)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_an_anchor_that_exist(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_commands_says_who_runs_it(page: Path) -> None:
    for block in blocks(page):
        if block.language not in ("sh", "bash", "shell", "console"):
            continue
        kind, _, where = block.mark.partition("=")
        assert kind in ("tested", "tested-by", "cloud"), block.text
        assert (kind == "tested-by") == bool(where), block.text
        assert not where or (ROOT / where).is_file(), where


def test_continuous_integration_runs_what_is_said_to_be_run_by_it() -> None:
    run_by_it = set(re.findall(r"make (\w+)", (ROOT / ".ci" / "run").read_text()))
    assert "check: lint test " in (ROOT / "Makefile").read_text()
    if {"lint", "test"} <= run_by_it:
        run_by_it.add("check")
    for page in PAGES:
        for block in blocks(page):
            if block.mark == "tested-by=.ci/run":
                assert set(re.findall(r"^make (\w+)", block.text, re.MULTILINE)) <= run_by_it


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"ossfs-py ([a-z][a-z-]+)(?![\w./@])", told_by(GUIDE)))
    known = set(re.findall(r"^  ([a-z][a-z-]*) ", run("--help"), re.MULTILINE))
    # "ossfs-py and", "ossfs-py uses": the program in a sentence.
    in_code = set(re.findall(r"`(?:man )?ossfs-py ([a-z][a-z-]+)", told_by(GUIDE)))
    in_blocks = {
        name
        for page in GUIDE
        for block in blocks(page)
        if block.language == "sh"
        for name in re.findall(r"\bossfs-py ([a-z][a-z-]+)", block.text)
    }
    assert (in_code | in_blocks) - known == set()
    assert in_code | in_blocks <= named


def test_every_option_that_is_named_exists() -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]*[a-z])", told_by(GUIDE)))
    known = set(re.findall(r"--[a-z][a-z-]*[a-z]", run("man").replace("\\-", "-")))
    known |= {name.replace("--", "--no-", 1) for name in known}  # every flag has that form
    assert named - known - OF_OTHER_PROGRAMS == set()


def test_every_metric_that_is_named_exists() -> None:
    registry = Metrics().registry
    SharedCacheMetrics(registry)
    named = set(re.findall(r"`(ossfs_[a-z_]+)", told_by(GUIDE))) - {"ossfs_py"}
    known = {family.name for family in registry.collect()}
    assert {name.removesuffix("_total") for name in named} - known == set()


def test_every_target_of_make_that_is_named_exists() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", told_by(PAGES)))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named - set(targets) == set()


def test_files_that_are_named_exist() -> None:
    named = set(re.findall(r"`((?:systemd|docker)/[\w./-]*)", told_by(GUIDE)))
    assert {"docker/grafana-dashboard.json", "systemd/models.toml.example"} <= named
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "RESTARTS.md"])
def test_modules_that_are_named_exist(page: str) -> None:
    named = re.findall(
        r"`([a-z_0-9./]+/[a-z_0-9/]*(?:\.py)?)`", (ROOT / "ossfs_py" / page).read_text()
    )
    assert len(named) > 10
    named = [name for name in named if not name.startswith(("/", "unsaved/"))]
    places = (ROOT / "ossfs_py", ROOT)
    assert not [name for name in named if not any((place / name).exists() for place in places)]


def test_every_promise_of_the_semantics_names_a_test() -> None:
    page = (DOCS / "semantics.md").read_text()
    promises = re.findall(r"^\* .*?(?=^\* |^\n|^## )", page, re.DOTALL | re.MULTILINE)
    assert len(promises) > 15
    existing = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for promise in promises:
        named = set(re.findall(r"\btest_\w+", promise.partition("<!--")[2]))
        assert named, f"nothing proves: {promise}"
        assert named <= existing, f"no such tests: {sorted(named - existing)}"


def test_the_chinese_page_tells_options_that_both_programs_have() -> None:
    page = (DOCS / "migration-zh.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| .*`-o", line)]
    assert len(rows) > 20
    same = {"ro", "allow_other", "uid", "gid", "umask"}
    theirs = {name for row in rows for name in re.findall(r"`-o(\w+)", row.split(" | ")[0])}
    known = {name for name, foreign in FOREIGN_NAMES.items() if OSSFS in foreign.programs}
    assert theirs - known == same


def test_a_mount_answers_the_options_of_others_as_the_page_shows() -> None:
    options = "url=http://store.example,use_cache=/tmp"
    with pytest.raises(BadOptionsError) as caught:
        load(CommandLine({"bucket": "models", "mountpoint": "/mnt/models"}, (options,)), {})
    page = (DOCS / "migration.md").read_text()
    assert f"-o {options}\n" in page
    for line in caught.value.problems:
        assert f"ossfs-py: {line}\n" in page


def test_every_page_of_the_guide_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["ossfs_py"]
    package = ROOT / "ossfs_py"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {*package.glob("*.md"), *DOCS.iterdir()} <= packed


def test_the_picture_shows_nothing_of_the_machine_it_was_made_on() -> None:
    picture = (DOCS / "tour.svg").read_text()
    assert "/home/you/models" in picture
    # Every path is the reader's; nothing is loaded from elsewhere.
    assert set(re.findall(r"(?<![\w~.:/<])/[a-z]+/", picture)) == {"/home/"}
    assert "url(http" not in picture


def test_the_front_page_stays_short() -> None:
    assert len(README.read_text().splitlines()) <= 170
