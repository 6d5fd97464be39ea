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

from tests.fuzz.targets import TARGETS

_UNGUIDED = "Is the code instrumented for coverage?"
"""What libFuzzer says when no input reaches other code than any other."""


def main() -> int:
    """Run the searches one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, help="directory to keep inputs in")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.targets or TARGETS:
            corpus = (options.corpus or Path(scratch)) / name
            corpus.mkdir(parents=True, exist_ok=True)
            command = [*(sys.executable, "-m", "tests.fuzz.search")]
            command += [name, str(options.seconds), str(corpus)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            found = dict(
                line.removeprefix("stat::").split(":", 1)
                for line in done.stderr.splitlines()
                if line.startswith("stat::")
            )
            runs = found.get("number_of_executed_units", "?").strip()
            kept = len(list(corpus.iterdir()))
            failure = done.returncode != 0 or _UNGUIDED in done.stderr
            print(  # noqa: T201 - the answer to whoever asked
                f"{name}: {runs} inputs, {kept} of them reached something new, "
                f"{'FAILED' if failure else 'fine'}",
                flush=True,
            )
            if failure:
                failed.append(name)
                print(done.stderr[-4000:], flush=True)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
