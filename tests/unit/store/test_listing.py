"""LIST answers of several servers."""

import pytest

from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.list_xml import parse_list_page, parse_time

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2024-05-05T11:22:33.250Z</LastModified>"
    '<ETag>"abc"</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass>'
    "<Owner><ID>1</ID><DisplayName>me</DisplayName></Owner></Contents>"
)


def page(inner: str, namespace: str = NAMESPACE) -> bytes:
    return f"<?xml version='1.0'?><ListBucketResult{namespace}>{inner}</ListBucketResult>".encode()


@pytest.mark.parametrize("namespace", [NAMESPACE, ""], ids=["namespace", "bare"])
def test_objects_carry_what_the_page_tells(namespace: str) -> None:
    parsed = parse_list_page(page(ENTRY.format(key="a/b&amp;c"), namespace))
    (found,) = parsed.objects
    assert (found.key, found.size, found.etag) == ("a/b&c", 5, "abc")
    assert found.mtime_ns == 1714908153_250_000_000
    assert (found.storage_class, found.owner) == ("STANDARD", "me")
    assert found.metadata is None
    assert parsed.next_token is None


def test_url_encoded_keys_and_prefixes_are_decoded() -> None:
    parsed = parse_list_page(
        page(
            ENTRY.format(key="a+b%2B%C3%A9%FF")
            + "<CommonPrefixes><Prefix>c%20d/</Prefix></CommonPrefixes>"
            + "<EncodingType>url</EncodingType>"
        )
    )
    assert parsed.objects[0].key == "a b+é\udcff"
    assert parsed.prefixes == ("c d/",)


def test_keys_of_a_store_that_does_not_encode_stay_as_they_are() -> None:
    assert parse_list_page(page(ENTRY.format(key="a+b%2B"))).objects[0].key == "a+b%2B"


def test_a_truncated_page_names_the_next() -> None:
    token = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    assert parse_list_page(page(token)).next_token == "t"
    assert parse_list_page(page("<IsTruncated>false</IsTruncated>")).next_token is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Welcome</body></html>",
        page(ENTRY.format(key="a"))[:-30],
        page("<Contents><Key>a</Key></Contents>"),
        page(ENTRY.format(key="a").replace(">5<", ">five<")),
        page("<IsTruncated>true</IsTruncated>"),
    ],
    ids=["empty", "html", "cut", "incomplete", "no number", "no token"],
)
def test_what_is_not_a_whole_page_is_no_answer(body: bytes) -> None:
    with pytest.raises(NoAnswerError):
        parse_list_page(body)


def test_times_before_the_epoch_are_negative() -> None:
    assert parse_time("1969-12-31T23:59:59.500Z") == -500_000_000


PLAIN = (
    "<Contents><Key>{key}</Key><LastModified>2024-05-05T11:22:33.250Z</LastModified>"
    "<ETag>{quote}abc{quote}</ETag><Size>5</Size></Contents>"
)


@pytest.mark.parametrize(
    ("key", "raw", "decoded"),
    [
        ("a", "a", "a"),
        ("a+b%2B%C3%A9%FF", "a+b%2B%C3%A9%FF", "a b+é\udcff"),
        ("x&amp;&lt;y", "x&<y", "x&<y"),
        ("&#1234;", "\u04d2", "\u04d2"),
        ("", "", ""),
        ("é", "é", "é"),
    ],
)
@pytest.mark.parametrize("url_encoded", [True, False], ids=["url", "raw"])
def test_a_key_is_decoded_once_as_the_page_says(
    key: str, raw: str, decoded: str, url_encoded: bool
) -> None:
    more = "<EncodingType>url</EncodingType>" if url_encoded else ""
    (found,) = parse_list_page(page(PLAIN.format(key=key, quote="&quot;") + more)).objects
    assert found.key == (decoded if url_encoded else raw)


@pytest.mark.parametrize("quote", ["&quot;", "&#34;", "&#x22;", '"', ""])
def test_an_etag_is_told_without_its_quotes_however_they_are_written(quote: str) -> None:
    (found,) = parse_list_page(page(PLAIN.format(key="a", quote=quote))).objects
    assert (found.etag, found.storage_class) == ("abc", None)


def test_entries_with_and_without_an_owner_keep_their_order() -> None:
    first, last = (PLAIN.format(key=key, quote="&quot;") for key in "ac")
    parsed = parse_list_page(page(first + ENTRY.format(key="b") + last))
    assert [(found.key, found.owner) for found in parsed.objects] == [
        ("a", None),
        ("b", "me"),
        ("c", None),
    ]
