"""``python -m tests.fuzz [--seconds N] [TARGET ...]``: search for inputs that are bugs.

Each target runs in a process of its own under atheris (libFuzzer), guided by the coverage of the
package. What was found lies in ``--corpus`` and is the beginning of the next search. A failing
input is shown, kept there, and the exit code is 1.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ONE_INPUT_SECONDS = 10
"""An input that takes longer is a bug, too."""
MEMORY_MIB = 1024
LONGEST_INPUT_BYTES = 32 * 1024


def search(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris

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


def main() -> int:
    """Run the searches one after the other."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, help="directory to keep inputs in")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if options.inside:
        search(options.targets[0], options.seconds, options.corpus)
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.targets or TARGETS:
            corpus = (options.corpus or Path(scratch)) / name
            corpus.mkdir(parents=True, exist_ok=True)
            command = [*(sys.executable, "-m", "tests.fuzz", "--inside", name)]
            command += ["--seconds", str(options.seconds), "--corpus", str(corpus)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            found = dict(
                line.removeprefix("stat::").split(":", 1)
                for line in done.stderr.splitlines()
                if line.startswith("stat::")
            )
            runs = found.get("number_of_executed_units", "?").strip()
            print(  # noqa: T201 - the answer to whoever asked
                f"{name}: {runs} inputs, {'FAILED' if done.returncode else 'fine'}", flush=True
            )
            if done.returncode:
                failed.append(name)
                print(done.stderr[-4000:], flush=True)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
