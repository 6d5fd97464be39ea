"""What names a store: the address that was worked out, and whose word is taken for it."""

from pathlib import Path

import pytest

from ossfs_py.store import StoreOptions, open_store
from ossfs_py.telemetry.metrics import Metrics
from tests.support.tls_front import make_certificate


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text(
        "[profile china]\nregion = cn-north-1\n[profile europe]\nregion = eu-west-1\n"
    )
    config.chmod(0o600)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))


def place(**changes: object) -> str:
    store = open_store(StoreOptions("models", **changes), Metrics())  # type: ignore[arg-type]
    try:
        return store.place
    finally:
        store.close()


def test_a_profile_s_region_is_part_of_the_place() -> None:
    """Buckets of one name may exist in each partition of AWS."""
    assert place(profile="china") == "https://s3.cn-north-1.amazonaws.com.cn"
    assert place(profile="europe") == "https://s3.eu-west-1.amazonaws.com"


def test_two_spellings_of_one_endpoint_are_one_place() -> None:
    given = ("store.example.com", "https://store.example.com", "https://store.example.com:443/")
    assert {place(endpoint=one) for one in given} == {"https://store.example.com"}


def test_every_degree_of_trust_is_a_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = (make_certificate(tmp_path, name)[0] for name in ("one", "other"))
    copy = tmp_path / "copy.pem"
    copy.write_bytes(one.read_bytes())
    endpoint = "https://store.example.com"
    places = [
        place(endpoint="http://store.example.com"),
        place(endpoint=endpoint),
        place(endpoint=endpoint, verify_tls=False),
        place(endpoint=endpoint, ca_bundle=one),
        place(endpoint=endpoint, ca_bundle=other),
    ]
    assert len(set(places)) == len(places)
    assert place(endpoint=endpoint, ca_bundle=copy) == places[3]
    # Whoever sets these for OpenSSL says whom to trust, too.
    monkeypatch.setenv("SSL_CERT_FILE", str(one))
    assert (with_file := place(endpoint=endpoint)) not in places
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    assert place(endpoint=endpoint) not in (*places, with_file)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert place(endpoint=endpoint) not in places


def test_trust_does_not_count_where_nobody_is_asked_for_a_certificate(tmp_path: Path) -> None:
    endpoint = "http://store.example.com"
    assert place(endpoint=endpoint, verify_tls=False) == place(endpoint=endpoint)
