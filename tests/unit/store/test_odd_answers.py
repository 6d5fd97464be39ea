"""Answers that are none, that lead elsewhere, or that say things in other ways than most stores."""

import pytest

from ossfs_py.errors import (
    MetadataTooLargeError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
)
from ossfs_py.model import CommitRequest, ListQuery, MultipartUpload, ObjectVersion, Part
from ossfs_py.namespace.metadata import decode, encode
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.s3.list_xml import parse_list_page
from tests.support.scripted_server import (
    ETAG,
    ScriptedServer,
    Step,
    error,
    raw,
    reply,
    store_for,
)

TIME = "Sun, 06 Nov 1994 08:49:37 GMT"
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>{etag}"
    "<Size>7</Size></Contents>"
)


def page(*entries: str, more: str = "") -> bytes:
    inside = "".join(entries)
    return f"<ListBucketResult>{more}{inside}</ListBucketResult>".encode()


def head(**more: str) -> Step:
    return reply(200, b"", {"last-modified": TIME, "etag": f'"{ETAG}"', **more}, length=7)


def asked(steps: list[list[list[Step]]], act: str, **options: object) -> StoreError:
    """The error that ``act`` ends with."""
    with ScriptedServer(steps) as server:
        store = store_for(server.url, **options)
        try:
            with pytest.raises(StoreError) as caught:
                do(store, act)
        finally:
            store.close()
    return caught.value


def do(store: ObjectStore, act: str) -> None:
    if act == "list":
        store.list_page(ListQuery("", max_keys=2))
    elif act == "head":
        store.head("key")
    elif act == "get":
        store.get_range_into(ObjectVersion("key", ETAG, 7), 0, memoryview(bytearray(7)))
    elif act == "copy":
        store.copy(ObjectVersion("source", ETAG, 7), "key")
    elif act == "put":
        store.put(CommitRequest("key"), b"content")
    elif act == "part":
        store.upload_part(MultipartUpload("key", "id"), 1, b"content")
    elif act == "complete":
        store.complete(MultipartUpload("key", "id"), [Part(1, ETAG, 7)], CommitRequest("key"))
    elif act == "delete":
        store.delete("key")
    else:
        store.start_multipart(CommitRequest("key"))


NO_ANSWERS = {"HTML": b"<html>Log in</html>", "JSON": b'{"error": "no"}', "nothing": b""}
ACTS = ("list", "head", "get", "multipart", "put", "part", "complete", "copy", "delete")


@pytest.mark.parametrize(
    ("act", "body"),
    [
        pytest.param(act, body, id=f"{name} to {act}")
        for act in ACTS
        for name, body in NO_ANSWERS.items()
        # The answers of stores to these have no body either.
        if body or act not in ("part", "delete")
    ],
)
def test_what_is_no_answer_is_asked_for_again_until_the_budget_is_over(
    act: str, body: bytes
) -> None:
    answer = [[reply(200, body, {"content-type": "text/html"})]]
    failed = asked([answer] * 60, act, retry_budget_seconds=0.3)
    if act == "get":  # an answer without the pinned ETag is another version
        assert "changed at the store" in str(failed)
        return
    assert isinstance(failed, StoreUnavailableError)
    assert failed.attempts > 1


def test_an_upload_that_nobody_vouches_for_is_not_taken_for_the_object_that_was_there() -> None:
    """200 and no ETag, as of some servers; but what is stored has another size."""
    other = reply(200, b"", {"last-modified": TIME, "etag": f'"{ETAG}"'}, length=6)
    turns = [turn for _ in range(60) for turn in ([reply(200)], [other])]
    failed = asked([turns], "put", retry_budget_seconds=0.3)
    assert isinstance(failed, StoreUnavailableError)
    assert failed.attempts > 1


@pytest.mark.parametrize("act", ["list", "head", "get", "copy", "put", "multipart"])
@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (301, {"x-amz-bucket-region": "eu-west-1"}, "redirected in region eu-west-1"),
        (307, {"location": "https://elsewhere.example.com/bucket/key"}, "elsewhere.example.com"),
        (302, {"location": "/login?next=key"}, "redirected"),
    ],
)
def test_a_redirect_is_not_followed_but_told_at_once(
    act: str, status: int, headers: dict[str, str], told: str
) -> None:
    """A signed request, and the bytes of an upload, are for the store that was named."""
    failed = asked([[[reply(status, b"", headers)]]], act)
    assert told in str(failed)
    assert failed.attempts == 1


@pytest.mark.parametrize("name", ["x-amz-meta-mode", "X-Amz-Meta-Mode", "X-AMZ-META-MODE"])
def test_metadata_is_known_however_its_names_are_written(name: str) -> None:
    with ScriptedServer([[[head(**{name: "33188"})]]]) as server:
        store = store_for(server.url)
        assert decode(store.head("key").metadata or {}).mode == 0o100644
        store.close()


@pytest.mark.parametrize(
    "value", ["mod\u00e8le".encode(), b"mod\xe8le", b"\xff\xfe", b"two  \xc2\xa0 spaces"]
)
def test_metadata_that_others_wrote_goes_back_byte_for_byte(value: bytes) -> None:
    answer = (
        f"HTTP/1.1 200 OK\r\netag: {ETAG}\r\nlast-modified: {TIME}\r\n"
        "content-type: text/plain\r\ncontent-length: 7\r\n"
    ).encode()
    answer += b"x-amz-meta-title: " + value + b"\r\n"
    answer += b"content-disposition: inline; filename=" + value + b"\r\n\r\n"
    done = reply(200, f"<CopyObjectResult><ETag>{ETAG}</ETag></CopyObjectResult>".encode())
    with ScriptedServer([[[raw(answer)], [done]]]) as server:
        store = store_for(server.url)
        info = store.head("key")
        again = encode(mode=0o100600, uid=1, gid=1, foreign=info.metadata)
        store.copy(info.version, "key", metadata=again, like=info)
        store.close()
    sent = server.requests[1].headers
    assert sent["x-amz-meta-title"].encode("latin-1") == value
    assert sent["content-disposition"].encode("latin-1") == b"inline; filename=" + value


@pytest.mark.parametrize(
    "told", ['W/"abc"', '"abc"', "abc", "W/&quot;abc&quot;", "&quot;abc&quot;"]
)
def test_an_etag_is_the_same_however_a_listing_spells_it(told: str) -> None:
    (found,) = parse_list_page(page(ENTRY.format(key="a", etag=f"<ETag>{told}</ETag>"))).objects
    assert found.etag == "abc"


@pytest.mark.parametrize("etag", ["", "<ETag></ETag>", "<ETag>&quot;&quot;</ETag>"])
def test_an_object_without_an_etag_is_listed_and_read_but_not_pinned(etag: str) -> None:
    (found,) = parse_list_page(page(ENTRY.format(key="a", etag=etag))).objects
    buffer = bytearray(3)
    answer = reply(206, b"ten", {"content-range": "bytes 2-4/7"})
    with ScriptedServer([[[answer]]]) as server:
        store = store_for(server.url)
        store.get_range_into(found.version, 2, memoryview(buffer))
        store.close()
    assert bytes(buffer) == b"ten"
    assert "if-match" not in server.requests[0].headers


def test_an_object_with_the_right_etag_that_has_another_size_is_another_one() -> None:
    """A HEAD of JuiceFS's gateway may tell the size of one version and the ETag of the next."""
    answer = reply(206, b"ten", {"content-range": "bytes 2-4/9", "etag": f'"{ETAG}"'})
    with ScriptedServer([[[answer]]]) as server:
        store = store_for(server.url)
        with pytest.raises(StoreError, match="changed at the store"):
            store.get_range_into(ObjectVersion("a", ETAG, 7), 2, memoryview(bytearray(3)))
        store.close()


def test_an_object_that_has_another_size_after_a_read_is_another_one() -> None:
    given = reply(206, b"ten", {"content-range": "bytes 2-4/7", "etag": f'"{ETAG}"'})
    later = reply(200, b"", {"last-modified": TIME, "etag": f'"{ETAG}"'}, length=9)
    with ScriptedServer([[[given], [later]]]) as server:
        store = store_for(server.url, conditional_reads="off")
        with pytest.raises(StoreError, match="changed at the store"):
            store.get_range_into(ObjectVersion("a", ETAG, 7), 2, memoryview(bytearray(3)))
        store.close()


def test_an_object_without_an_etag_that_has_another_size_is_another_one() -> None:
    answer = reply(206, b"ten", {"content-range": "bytes 2-4/9"})
    with ScriptedServer([[[answer]]]) as server:
        store = store_for(server.url)
        with pytest.raises(StoreError, match="changed at the store"):
            store.get_range_into(ObjectVersion("a", "", 7), 2, memoryview(bytearray(3)))
        store.close()


@pytest.mark.parametrize("etag", [None, "", '""', 'W/""'])
def test_versions_without_etags_are_told_apart_by_their_times(etag: str | None) -> None:
    told = {} if etag is None else {"etag": etag}
    at = {"last-modified": TIME.replace("1994", "2024")}
    (listed,) = parse_list_page(page(ENTRY.format(key="key", etag=""))).objects
    range_of = {"content-range": "bytes 2-4/7", **told}
    steps = [
        [reply(200, b"", {**told, "last-modified": TIME}, length=7)],
        [reply(206, b"ten", {**range_of, "last-modified": TIME})],
        [reply(206, b"ten", {**range_of, **at})],
    ]
    with ScriptedServer([steps]) as server:
        store = store_for(server.url)
        version = store.head("key").version
        assert version != listed.version
        store.get_range_into(version, 2, memoryview(bytearray(3)))
        with pytest.raises(StoreError, match="changed at the store"):
            store.get_range_into(version, 2, memoryview(bytearray(3)))
        store.close()
    assert not any("if-match" in seen.headers for seen in server.requests)


@pytest.mark.parametrize("written", ["{}", "&#x{:02x};", "&#{:d};"])
def test_a_key_with_a_control_character_does_not_hide_its_siblings(written: str) -> None:
    """As Ceph answers: prefix and token as they are, though XML has no place for them."""
    one, two = (written.format(char if written == "{}" else ord(char)) for char in "\x01\x1f")
    told = parse_list_page(
        page(
            ENTRY.format(key="d/good%2F\ue000", etag="<ETag>&#34;a&#34;</ETag>"),
            f"<CommonPrefixes><Prefix>d/ctl{one}x/</Prefix></CommonPrefixes>",
            more=f"<Prefix>d/{two}</Prefix><EncodingType>url</EncodingType>"
            "<IsTruncated>true</IsTruncated>"
            f"<NextContinuationToken>d%/{one}\ue001{two}\uffff</NextContinuationToken>",
        )
    )
    assert [(one.key, one.etag) for one in told.objects] == [("d/good/\ue000", "a")]
    assert told.prefixes == ("d/ctl\x01x/",)
    assert told.next_token == "d%/\x01\ue001\x1f\uffff"


def test_a_listing_without_an_end_is_told_after_three_looks() -> None:
    entries = [ENTRY.format(key=f"k{n}", etag="<ETag>a</ETag>") for n in range(20_000)]
    answer = [[reply(200, page(*entries))]]
    failed = asked([answer] * 3, "list", retry_budget_seconds=30.0)
    assert isinstance(failed, UnsupportedByStoreError)
    assert "ignores max-keys" in str(failed)


def test_a_page_of_more_than_was_asked_for_is_taken() -> None:
    entries = [ENTRY.format(key=f"k{n}", etag="<ETag>a</ETag>") for n in range(5000)]
    assert len(parse_list_page(page(*entries)).objects) == 5000


def test_bytes_are_stored_without_the_tags_that_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tags = b"<Tagging><TagSet><Tag><Key>team</Key><Value>a b</Value></Tag></TagSet></Tagging>"
    done = reply(200, b"", {"etag": f'"{ETAG}"'})
    steps = [[head(**{"x-amz-tagging-count": "1"})], [reply(200, tags)]]
    steps += [[error(403, "AccessDenied")], [done], [reply(200, tags)], [done]]
    with ScriptedServer([steps]) as server:
        store = store_for(server.url)
        info = store.head("key")
        for _ in range(2):
            store.put(CommitRequest("key", like=info), b"content")
        store.close()
    sent = [seen.headers.get("x-amz-tagging") for seen in server.requests if seen.method == "PUT"]
    assert sent == ["team=a%20b", None, "team=a%20b"]
    assert [one.getMessage() for one in caplog.records if "tags" in one.getMessage()] == [
        "tags of changed objects are lost: the store refuses them with uploads"
    ]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "MetadataTooLarge", "too much"),
        (400, "InvalidRequest", "Metadata value longer than 256: x-object-meta-symlink-target"),
        (400, "InvalidRequest", "Total metadata too large"),
    ],
)
def test_metadata_that_is_too_much_for_the_store_is_told_at_once(
    status: int, code: str, message: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    failed = asked([[[reply(status, body)]]], "put")
    assert isinstance(failed, MetadataTooLargeError)
    assert message in str(failed)
