"""The [store] table: what it takes, and what it makes of it."""

from __future__ import annotations

import pytest

from gateway.config import Config
from gateway.config.store import Store
from gateway.config.stores import store_findings

ACCOUNT = {"access_key_id": "env:ID", "secret_access_key": "env:KEY"}


def store(url: str = "s3://vault/site", endpoint: str = "https://store.example:8333") -> Store:
    return Store.model_validate({"url": url, "endpoint": endpoint, **ACCOUNT})


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [("s3://vault", "vault", ""), ("s3://my.vault-1/a", "my.vault-1", "a"), ("s3://vault/a/b_c.d", "vault", "a/b_c.d")],
)
def test_bucket_and_prefix(url: str, bucket: str, prefix: str) -> None:
    assert (store(url).bucket, store(url).prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    "url", ["vault", "s3:/vault", "s3://", "s3://V", "s3://vault/", "s3://vault//a", "s3://vault/../a", "file:///x",
            "s3://id:secret@vault"],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="s3://BUCKET"):
        store(url)


@pytest.mark.parametrize("endpoint", ["store.example", "ftp://store", "https://", "https://a/b", "https://u:p@store"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(ValueError, match="https://HOST"):
        store(endpoint=endpoint)


@pytest.mark.parametrize(
    ("endpoint", "plain", "local"),
    [("http://127.0.0.1:8333", True, True), ("http://[::1]:1", True, True), ("https://store.example", False, False)],
)
def test_how_it_is_reached(endpoint: str, plain: bool, local: bool) -> None:
    assert (store(endpoint=endpoint).is_plain, store(endpoint=endpoint).is_local) == (plain, local)


def test_an_account_is_given_by_reference() -> None:
    given = {"url": "s3://vault", "endpoint": "https://store.example", **ACCOUNT}
    with pytest.raises(ValueError, match="by reference"):
        Store.model_validate({**given, "secret_access_key": "the secret itself"})


def test_durability_cluster_wants_a_store_and_postgresql() -> None:
    given = {"url": "s3://vault", "endpoint": "https://store.example", **ACCOUNT}
    assert Config.model_validate({"store": given}).durability == "disk"
    for url in ("postgresql+psycopg://gateway@db.example/gateway", "env:MIAD_DATABASE_URL"):
        Config.model_validate({"durability": "cluster", "store": given, "database": {"url": url}})
    with pytest.raises(ValueError) as caught:
        Config.model_validate({"durability": "cluster"})
    assert "there is no [store] table" in str(caught.value) and "[database] url names none" in str(caught.value)
    with pytest.raises(ValueError, match="url names none"):
        Config.model_validate({"durability": "cluster", "store": given, "database": {"url": "sqlite:////x"}})


def test_a_database_behind_a_reference_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"url": "s3://vault", "endpoint": "https://store.example", **ACCOUNT}
    config = Config.model_validate(
        {"durability": "cluster", "store": given, "database": {"url": "env:MIAD_DATABASE_URL"}}
    )
    monkeypatch.setenv("MIAD_DATABASE_URL", "sqlite:////x")
    assert [(one.level, one.path) for one in store_findings(config, "ingress")] == [("error", ("database", "url"))]
    monkeypatch.setenv("MIAD_DATABASE_URL", "postgresql+psycopg://gateway@db.example/gateway")
    assert list(store_findings(config, "ingress")) == []
