"""``python -m tests.fuzz.search TARGET SECONDS CORPUS``: fuzz one target in this process.

Nothing of the package may be imported before atheris can instrument it: what is imported already
is never guided by coverage.
"""

import sys
from pathlib import Path

import atheris

ONE_INPUT_SECONDS = 10
"""An input that takes longer is a bug, too."""
MEMORY_MIB = 1024
LONGEST_INPUT_BYTES = 32 * 1024


def search(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process; does not return."""
    with atheris.instrument_imports(include=["ossfs_py"]):
        from tests.fuzz.targets import SEEDS, TARGETS
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        *(sys.argv[0], f"-max_total_time={seconds}", f"-timeout={ONE_INPUT_SECONDS}"),
        *(f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={LONGEST_INPUT_BYTES}"),
        *(f"-artifact_prefix={corpus}/failed-", "-print_final_stats=1", str(corpus)),
    ]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    search(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
