"""The Content-Type of a new file, by its name. Pure."""

import mimetypes
from functools import lru_cache

_BINARY = "application/octet-stream"
_ADDED = {
    **dict.fromkeys((".safetensors", ".gguf", ".ggml", ".pt", ".pth", ".ckpt", ".onnx"), _BINARY),
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".md": "text/markdown",
}
"""Types of files in models and data sets that Python 3.11 does not know."""
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

# The built-in table only: the machine's files would give one name two types on two hosts.
_TYPES = mimetypes.MimeTypes()
for _suffix, _type in _ADDED.items():
    _TYPES.add_type(_type, _suffix)


@lru_cache(4096)  # asked for while a file is written, and again when write-back sends it
def content_type_of(name: str) -> str | None:
    """The type that readers of the object are told; None where the name says nothing.

    A compressed file is what it is compressed with: nothing tells a browser to unpack it.
    """
    found, encoding = _TYPES.guess_type(f"/{name}", strict=False)
    return found if encoding is None else _COMPRESSED.get(encoding)
