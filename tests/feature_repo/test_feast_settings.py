"""`feast` and `uic` mean the same: one reader of settings, one registry, no secret in errors."""

from pathlib import Path

import pytest
import yaml
from feast import FeatureStore
from feast.repo_config import RepoConfig, load_repo_config

from uic.feature_repo.plugin.repository import REPOSITORY
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.config import load_config
from uic.models.errors import BadInputError, UicError

PASSWORDS = [
    *("12345", "0123", "true", "null", "#hash", "&amp", "*star", "!bang", "@at", "%pc", "- x"),
    *("p: q", "x #y", "'q", '"q', "[x", "{x", "${x", "${x}", "$x", "ä", "1e3", "~"),
]


def shipped() -> RepoConfig:
    """The repository's yaml as `feast` reads it."""
    return load_repo_config(REPOSITORY, REPOSITORY / "feature_store.yaml")


def with_online_store(folder: Path, **fields: object) -> RepoConfig:
    """A repository of one's own whose `online_store:` has these fields, too."""
    document = yaml.safe_load((REPOSITORY / "feature_store.yaml").read_text())
    document["online_store"] |= fields
    path = folder / "feature_store.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_repo_config(folder, path)


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_may_have_any_character(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("UIC_STORE__PASSWORD", password)
    monkeypatch.setenv("UIC_STORE__ADDRESS", "10.0.0.1:30")
    settings = shipped().online_store.settings
    assert settings == load_config(None).store
    assert settings.password.get_secret_value() == password
    assert settings.address == "10.0.0.1:30"
    assert password == "true" or password not in repr(settings)


def test_feast_reads_every_setting_that_uic_reads(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "uic.yaml").write_text(
        "time_zone: Asia/Shanghai\nstore: {address: 'redis:1', db: 3, keys_per_read: 7}\n"
    )
    monkeypatch.setenv("UIC_STORE__DB", "4")
    monkeypatch.setenv("UIC_STORE__USERNAME", "shop")
    settings = shipped().online_store.settings
    assert settings == load_config(workspace / "uic.yaml").store
    assert (settings.address, settings.db, settings.username) == ("redis:1", 4, "shop")
    monkeypatch.setenv("UIC_CONFIG", str(workspace / "missing.yaml"))
    with pytest.raises(BadInputError, match=r"missing\.yaml: no such file"):
        assert shipped().online_store


def test_fields_of_ours_may_stand_in_feature_store_yaml(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UIC_STORE__DB", "2")
    config = with_online_store(tmp_path, address="redis:1", db=1, username="shop")
    expected = StoreSettings(address="redis:1", db=2, username="shop")
    assert config.online_store.settings == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"connection_string": "redis:6379,db=3"}, r"connection_string is not used.*address"),
        ({"redis_type": "redis_cluster"}, r"redis_type is not used.*no Cluster or Sentinel"),
        ({"redis_type": "redis_sentinel"}, "redis_type is not used"),
        ({"sentinel_master": "primary"}, "sentinel_master is not used"),
        ({"client": "glide"}, r"client is not used.*redis-py"),
        ({"adress": "redis:1"}, "adress: no such setting"),
        ({"password": "${UIC_STORE__PASSWORD}"}, r"password names an environment variable.*remove"),
        ({"address": "redis://:s3cret@redis:1"}, r"store\.address: .*expected host:port"),
        ({"address": "redis", "password": "s3cret"}, r"store\.address: .*expected host:port"),
        ({"password": 12345}, r"store\.password: .*valid string; put it in quotes"),
        ({"password": "s3cret", "tls_ca_file": "a.pem"}, "tls is false"),
        ({"tls": True, "tls_cert_file": "a.pem"}, "belong together"),
        ({"tls": True, "address": "unix:///redis.sock"}, "does not encrypt"),
    ],
)
def test_what_the_store_does_not_honour_is_refused(
    workspace: Path, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(UicError, match=message) as refusal:
        assert with_online_store(tmp_path, **fields).online_store
    assert "s3cret" not in str(refusal.value)
    assert "12345" not in str(refusal.value)


def test_what_is_at_feasts_default_is_accepted(workspace: Path, tmp_path: Path) -> None:
    config = with_online_store(
        tmp_path, redis_type="redis", client="redis", connection_string="localhost:6379"
    )
    assert config.online_store.settings == StoreSettings()


@pytest.mark.parametrize(
    "text",
    [
        "store: {password: 12345}",
        "store: {password: s3cret, pasword: x",
        "store: {password:\n  - s3cret",
    ],
)
def test_no_error_of_uic_yaml_prints_a_password(tmp_path: Path, text: str) -> None:
    path = tmp_path / "uic.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError) as refusal:
        load_config(path)
    assert "12345" not in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_stock_feast_finds_the_registry_of_the_workspace(workspace: Path, registry: Path) -> None:
    (workspace / "feast.db").write_bytes(registry.read_bytes())
    names = [view.name for view in FeatureStore(config=shipped()).list_feature_views()]
    assert sorted(names) == ["item_image", "user_features", "user_interest"]
