"""What DeleteObjects makes of answers of all kinds: nothing counts as removed that was not said."""

import base64
import hashlib

import pytest

from ossfs_py.errors import BucketMissingError, StoreUnavailableError, UnsupportedByStoreError
from tests.support.scripted_server import ScriptedServer, error, reply, store_for

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
KEYS = ["a & b", "c/<d>", "e"]


def answer(*removed: str, refused: str = "") -> bytes:
    said = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in removed)
    if refused:
        said += f"<Error><Key>{refused}</Key><Code>AccessDenied</Code></Error>"
    return f'<DeleteResult xmlns="{NAMESPACE}">{said}</DeleteResult>'.encode()


def test_a_batch_names_each_key_and_says_what_should_arrive() -> None:
    said = answer("a &amp; b", "c/&lt;d&gt;", "e")
    with ScriptedServer([[[reply(200, said)]]]) as server:
        store = store_for(server.url)
        assert store.delete_many(KEYS) == []
        store.close()
    (seen,) = server.requests
    assert b"<Key>a &amp; b</Key>" in seen.body
    assert b"<Quiet>false</Quiet>" in seen.body
    digest = hashlib.md5(seen.body, usedforsecurity=False).digest()
    assert seen.headers["content-md5"] == base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (answer("e", refused="a &amp; b"), KEYS[:2]),
        (answer(), KEYS),
        (b"", KEYS),
        (b"<html>Welcome</html>", KEYS),
        (b"<ListBucketResult><Contents><Key>e</Key></Contents></ListBucketResult>", KEYS),
    ],
)
def test_what_is_not_said_to_be_removed_is_left(body: bytes, left: list[str]) -> None:
    with ScriptedServer([[[reply(200, body)]]]) as server:
        store = store_for(server.url)
        assert store.delete_many(KEYS) == left
        store.close()


def test_an_error_inside_a_200_is_tried_again() -> None:
    inside = reply(200, b"<Error><Code>InternalError</Code><Message>m</Message></Error>")
    said = answer("a &amp; b", "c/&lt;d&gt;", "e")
    with ScriptedServer([[[inside]], [[reply(200, said)]]]) as server:
        store = store_for(server.url)
        assert store.delete_many(KEYS) == []
        store.close()


@pytest.mark.parametrize(
    "refusal",
    [
        error(501, "NotImplemented"),
        error(405, "MethodNotAllowed"),
        error(400, "MalformedXML"),
        error(404, "NotFound"),
    ],
)
def test_a_store_without_batches_is_asked_once(refusal: object) -> None:
    with ScriptedServer([[[refusal]]]) as server:  # type: ignore[list-item]
        store = store_for(server.url)
        assert store.delete_many(KEYS) == KEYS
        with pytest.raises(UnsupportedByStoreError):
            store.delete_many(KEYS)
        store.close()
    assert len(server.requests) == 1


def test_a_bucket_that_refuses_batches_leaves_all_to_single_requests() -> None:
    with ScriptedServer([[[error(403, "AccessDenied")]]]) as server:
        store = store_for(server.url)
        assert store.delete_many(KEYS) == KEYS
        store.close()


def test_a_missing_bucket_and_an_outage_are_errors() -> None:
    with ScriptedServer([[[error(404, "NoSuchBucket")]]]) as server:
        store = store_for(server.url)
        with pytest.raises(BucketMissingError):
            store.delete_many(KEYS)
        store.close()
    busy = [[error(503, "SlowDown")]]
    with ScriptedServer([busy] * 20) as server:
        store = store_for(server.url)
        with pytest.raises(StoreUnavailableError):
            store.delete_many(KEYS)
        store.close()


def test_keys_that_no_document_can_say_are_left_to_single_requests() -> None:
    odd = ["tab\there", "line\rend", "\x01"]
    with ScriptedServer([[[reply(200, answer("e"))]]]) as server:
        store = store_for(server.url)
        assert store.delete_many([*odd, "e"]) == odd
        store.close()
    assert server.requests[0].body.count(b"<Key>") == 1
