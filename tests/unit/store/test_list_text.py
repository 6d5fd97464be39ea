"""Entries that are read as text are those that the XML parser finds."""

import pytest

from ossfs_py.model import ListPage, dated
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3 import list_text
from ossfs_py.store.s3.list_xml import parse_list_page

TIME = "<LastModified>2024-05-05T11:22:33.250Z</LastModified>"
OWNER = "<Owner><ID>1</ID><DisplayName>me</DisplayName></Owner>"
PLAIN = f"<Contents><Key>{{0}}</Key>{TIME}<ETag>&quot;{{0}}&quot;</ETag><Size>5</Size></Contents>"
SUMMED = PLAIN.replace("<Size>", "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><Size>")
OWNED = PLAIN.replace("<Size>", f"{OWNER}<Size>")
INDENTED = "\n  " + PLAIN.replace("><", ">\n    <")


def page(entries: str, more: str = "") -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3/">'
        f"<EncodingType>url</EncodingType>{entries}{more}</ListBucketResult>"
    ).encode()


def several(*forms: str) -> str:
    return "".join(form.format(f"key%20{number}") for number, form in enumerate(forms))


def outcome(body: bytes) -> ListPage | type[Exception]:
    try:
        return parse_list_page(body)
    except NoAnswerError as exc:
        return type(exc)


@pytest.mark.parametrize(
    "body",
    [
        page(several(*[PLAIN] * 20)),
        page(several(PLAIN, SUMMED, OWNED, PLAIN, SUMMED)),
        page(several(*[INDENTED] * 3), "\n"),
        page(several(OWNED, OWNED), "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"),
        page(several(PLAIN.replace("<Size>5</Size>", "<Size>5</Size><Type>Normal</Type>"))),
        page(several(PLAIN.replace("</Contents>", "<Owner><ID>7</ID></Owner></Contents>"))),
        page(several(PLAIN.replace("<Size>", "<StorageClass></StorageClass><Size>"))),
        page(several(PLAIN) + "\n" + several(PLAIN)),
        page(several(PLAIN.replace("<ETag>&quot;{0}&quot;</ETag>", ""))),
    ],
)
def test_usual_entries_are_read_as_text_with_the_same_result(body: bytes) -> None:
    assert list_text.entries(body) is not None
    by_parser = body + b"<!-- -->"
    assert list_text.entries(by_parser) is None
    assert outcome(body) == outcome(by_parser)
    assert isinstance(outcome(body), ListPage)


@pytest.mark.parametrize(
    "body",
    [
        page(""),
        page(several(PLAIN) + "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>" + PLAIN),
        page(several(PLAIN, PLAIN.replace("<Key>", "<Key a='b'>"))),
        page(several(PLAIN, PLAIN.replace("<Size>", "<Key>two</Key><Size>"))),
        page(several(PLAIN, PLAIN.replace("<Size>", "<More><Size>1</Size></More><Size>"))),
        page(several(PLAIN.replace("<Size>", "<Owner><Key>not mine</Key></Owner><Size>"))),
        page(several(PLAIN.replace("<Key>{0}</Key>", f"<Owner><Key>{0}</Key></Owner>"))),
        page(several(PLAIN.replace("<Size>", "<Owner><ID>1</ID></Owner><Owner/><Size>"))),
        page(several(PLAIN.replace("<Size>", "<DisplayName>me</DisplayName><Size>"))),
        page(several(PLAIN.replace("<Size>", "<Owner></Owner><Size>"))),
        page(several(PLAIN.replace("{0}</Key>", "a&amp;b</Key>"))),
        page(several(PLAIN.replace("{0}</Key>", "a&unknown;b</Key>"))),
        page(several(PLAIN.replace("{0}</Key>", "a]]>b</Key>"))),
        page(several(PLAIN.replace("{0}</Key>", "a\x01b</Key>"))),
        page(several(PLAIN.replace("{0}</Key>", "a\rb</Key>"))),
        page(several(PLAIN.replace("{0}</Key>", "é</Key>"))),
        page(several(PLAIN.replace("{0}</Key>", "<![CDATA[a]]></Key>"))),
        page(several(PLAIN.replace("<Key>", "<1Key>").replace("</Key>", "</1Key>"))),
        page(several(PLAIN.replace("<Size>5</Size>", ""))),
        page(several(PLAIN.replace("<Key>{0}</Key>", ""))),
        page(several(PLAIN.replace("<Size>5<", "<Size>five<"))),
        page(several(PLAIN).replace("</Contents>", "")),
        page(several(PLAIN) + "text" + several(PLAIN)),
        page("<!-- " + several(PLAIN) + " -->"),
        page("<Deeper>" + several(PLAIN) + "</Deeper>"),
        page("<Contents a='b'/>" + several(PLAIN)),
        page("<?hidden " + several(PLAIN) + "?>"),
        page(several(*(PLAIN.replace("<Size>", f"<T{n}>1</T{n}><Size>") for n in range(20)))),
        page(several(PLAIN))[:-1],
        page(several(PLAIN))[5:],
        several(PLAIN).encode(),
        several(PLAIN).encode("utf-16"),
    ],
)
def test_unusual_pages_are_read_or_refused_as_the_parser_does(body: bytes) -> None:
    assert outcome(body) == outcome(body + b"<!-- -->")


@pytest.mark.parametrize("end", ["", "<!-- -->"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_columns_with_odd_texts_are_read_entry_by_entry(count: int, end: str) -> None:
    entry = f"<Contents><Key>{{}}</Key>{TIME}<ETag>{{}}</ETag><Size>5</Size></Contents>"
    etags = ["&quot;a&quot;\n&quot;b", "&quot;", "", "W/&quot;c&quot;", "&quot;d&quot;", "e"]
    keys = ["1%0A", "2", "3+4", "%25", "%ff", "6"]
    body = page("".join(map(entry.format, keys[:count], etags[:count]))) + end.encode()
    objects = parse_list_page(body).objects
    stand_in = dated(objects[0].mtime_ns)
    assert [one.key for one in objects] == ["1\n", "2", "3 4", "%", "\udcff", "6"][:count]
    told = ['a"\n"b', stand_in, stand_in, "c", "d", "e"]
    assert [one.etag for one in objects] == told[:count]
