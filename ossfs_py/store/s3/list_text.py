"""Entries of a LIST answer, taken from its text without a tree of elements.

A page of 1,000 keys has 6,000 elements, and each is an object that Python's garbage collector looks
at. The entries of one server have the same form, so the first one makes an expression that finds
the texts of all of them. Whatever is unusual is left to the XML parser: nothing is read here in
another way than that does.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

FIELDS: Final = ("Key", "LastModified", "Size", "ETag", "StorageClass", "VersionId")
OWNER: Final = ("DisplayName", "ID")
_TEXTS = (*FIELDS, *OWNER)

Columns: TypeAlias = Sequence[Sequence[str]]
"""For each of :data:`FIELDS` and :data:`OWNER` its texts, one an entry; empty where it is missing.
"""

_BEGIN, _END = "<Contents>", "</Contents>"
STAND_IN: Final = b"<Contents/>"
"""Stands in the rest of a page for all of its entries."""

_LEAF = re.compile(r"<([A-Za-z]\w*)>([^<]*)</\1>")
_MOST_FORMS = 8
"""Forms of entries in one page: of those with and without a checksum, an owner and so on."""
_CONTROL = bytes({*range(32), 127} - {ord("\n")})


def entries(body: bytes) -> tuple[bytes, Columns] | None:
    """The page with :data:`STAND_IN` instead of its entries, and their texts.

    None if the page has to be parsed. The rest may still be no XML, or no page.
    """
    begin, end = body.find(_BEGIN.encode()), body.rfind(_END.encode()) + len(_END)
    if begin < 0 or end <= begin:
        return None
    inner, rest = body[begin:end], body[:begin] + STAND_IN + body[end:]
    if not inner.isascii() or len(inner.translate(None, _CONTROL)) != len(inner):
        return None  # XML has no place for control characters
    text = inner.decode("ascii")
    if "&" in text:
        text = text.replace("&quot;", '"')
    # What else "&" stands for is the parser's to say. A comment or a section might hide entries.
    if "&" in text or "]]>" in text or b"<!" in rest:
        return None
    found = _found(text)
    return None if found is None else (rest, found)


class _Form(NamedTuple):
    """Entries that differ in their texts only."""

    expression: re.Pattern[str]
    order: tuple[int, ...]
    """Where in an entry's texts those of :data:`_TEXTS` are."""
    tags: int
    """Number of tags in an entry."""


def _found(text: str) -> Columns | None:
    first = _form_at(text, 0)
    if first is None:
        return None
    found = first.expression.findall(text)
    if text.count("<") == first.tags * len(found):  # no text has one: there is nothing else
        columns = list(zip(*found, strict=True))
        return [columns[place] for place in first.order]
    return _found_one_by_one(text, [first])


def _found_one_by_one(text: str, forms: list[_Form]) -> Columns | None:
    columns: list[list[str]] = [[] for _ in _TEXTS]
    at, end = 0, len(text)
    while at < end:
        for form in forms:
            if (entry := form.expression.match(text, at)) is not None:
                break
        else:
            new = _form_at(text, at) if len(forms) < _MOST_FORMS else None
            if new is None or (entry := new.expression.match(text, at)) is None:
                return None
            forms.append(form := new)
        at = entry.end()
        texts = entry.groups()
        for column, place in zip(columns, form.order, strict=True):
            column.append(texts[place])
    return columns


def _form_at(text: str, at: int) -> _Form | None:
    """The form of the entry that begins there; None if it is unusual."""
    entry = text[at : text.find(_END, at) + len(_END)]
    skeleton: list[str] = []
    names: list[str] = []
    before = 0
    for leaf in _LEAF.finditer(entry):
        skeleton.append(entry[before : leaf.start(2)])
        names.append(leaf[1])
        before = leaf.end(2)
    skeleton.append(entry[before:])
    if len(set(names)) != len(names) or "Owner" in names or "Key" not in names:
        return None
    # What is left without them must be the tags around them, with nothing else between.
    tags = "".join("".join(skeleton).split())
    owner = "".join(f"<{name}></{name}>" for name in names if name in OWNER)
    tags = tags.replace(f"<Owner>{owner}</Owner>", "", 1)
    for name in names:
        if name not in OWNER:
            tags = tags.replace(f"<{name}></{name}>", "", 1)
    return _form(tuple(skeleton), tuple(names)) if tags == _BEGIN + _END else None


@lru_cache(_MOST_FORMS)
def _form(skeleton: tuple[str, ...], names: tuple[str, ...]) -> _Form:
    pattern = re.escape(skeleton[0])
    for name, tags in zip(names, skeleton[1:], strict=True):
        pattern += ("([^<]*)" if name in _TEXTS else "[^<]*") + re.escape(tags)
    missing = [name for name in _TEXTS if name not in names]
    order = [name for name in names if name in _TEXTS] + missing
    return _Form(
        re.compile(pattern + "()" * len(missing)),
        tuple(order.index(name) for name in _TEXTS),
        "".join(skeleton).count("<"),
    )
