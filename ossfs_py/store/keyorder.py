"""Where a LIST has to begin, and which keys a page tells of, whatever order a store keeps.

S3 has keys in the order of their characters: ``d-x/1`` comes before ``d/1``, as ``-`` does before
``/``. SeaweedFS 4.48 goes through directories in the order of their names: all of ``d/`` comes
before ``d-x/``. And behind the key ``d`` it goes on behind the directory ``d`` with all that is in
it. A page in which no such names are side by side looks the same in both orders, so it does not
show which of them is kept.
"""

LAST_CHARACTER = "\U0010ffff"
"""Sorts behind all others: no key below a directory comes after its prefix and this."""


def just_before(prefix: str) -> str:
    """A key before a directory's marker and all keys in it, and behind the names before it.

    ``prefix`` ends with a slash. To begin after its name without the slash would leave out the
    directory on SeaweedFS, and to begin after the slash its marker everywhere.
    """
    name = prefix.removesuffix("/")
    before = ord(name[-1]) - 1
    if 0xD800 <= before <= 0xDFFF:  # no character: a surrogate
        before = 0xD7FF
    return name[:-1] + chr(before) + LAST_CHARACTER


def is_behind(key: str, other: str) -> bool:
    """Whether a key comes behind another one in both orders."""
    return key > other and key.split("/") > other.split("/")
