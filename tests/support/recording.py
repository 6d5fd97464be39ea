"""The picture on the front page: a terminal in which a bucket is mounted and read.

``python -m tests.support.recording FILE.svg`` types the commands against an embedded server and
draws what they say.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ossfs_py.demo.server import SeaweedServer

COLUMNS = 96
COMMANDS = (
    'ossfs-py mount "$BUCKET" ~/models --endpoint "$ENDPOINT" --data-path direct',
    "ls -lh ~/models/llama",
    "md5sum ~/models/llama/model-00001-of-00002.safetensors",
    "ossfs-py info ~/models/llama/config.json",
    "ossfs-py umount ~/models",
)
_PREPARED = """
mkdir -p ~/models
ossfs-py mount "$BUCKET" ~/models --endpoint "$ENDPOINT"
mkdir ~/models/llama
head -c 64M /dev/zero >~/models/llama/model-00001-of-00002.safetensors
head -c 32M /dev/zero >~/models/llama/model-00002-of-00002.safetensors
echo '{"layers": 32}' >~/models/llama/config.json
ossfs-py umount ~/models
"""
_WEB_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def record(home: Path) -> str:
    """The terminal as SVG, without anything from elsewhere in it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    with SeaweedServer() as server:
        server.make_bucket("models")
        variables = {
            **server.environment,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BUCKET": "models",
            "ENDPOINT": server.endpoint,
            "COLUMNS": str(COLUMNS),
            "OSSFS_PY_STATE_DIR": str(home / "state"),
        }
        said(_PREPARED, variables)
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "green"), (command, "bold")))
            console.print(Text(said(command, variables).replace(str(home), "/home/you")), end="")
    return _WEB_FONTS.sub("", console.export_svg(title="ossfs-py"))


def said(script: str, variables: dict[str, str]) -> str:
    command = ["bash", "-euc", script]
    return subprocess.run(
        command, env=variables, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        Path(sys.argv[1]).write_text(record(Path(scratch)))
