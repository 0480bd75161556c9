"""How to get into Kafka, in the words of both clients, and what is refused before one is asked."""

import re
from pathlib import Path
from typing import Any

import pytest

from uic.jobs.config.config import load_config
from uic.jobs.config.security import StreamSecurity
from uic.jobs.config.stream import StreamSettings
from uic.jobs.drills.hostile.certificates import openssl
from uic.jobs.stream.topics.brokers import Brokers, brokers_of
from uic.models.errors import BadInputError

LOGIN: dict[str, Any] = {
    "protocol": "SASL_SSL",
    "mechanism": "SCRAM-SHA-512",
    "username": "shop",
    "password": "s3cret",
}
SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka.common"


def settings(**security: Any) -> StreamSettings:
    return StreamSettings(brokers="kafka.example:9094", security=StreamSecurity(**security))


def test_without_security_java_is_told_no_more_than_where_the_brokers_are() -> None:
    assert brokers_of(settings()).java_properties() == {"bootstrap.servers": "kafka.example:9094"}


def test_a_login_over_tls_in_the_words_of_librdkafka() -> None:
    assert brokers_of(settings(**LOGIN)).client_settings() == {
        "bootstrap.servers": "kafka.example:9094",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "shop",
        "sasl.password": "s3cret",
        "ssl.endpoint.identification.algorithm": "https",
    }


def test_java_gets_the_name_of_the_variable_not_the_password() -> None:
    brokers = brokers_of(settings(**LOGIN))
    assert brokers.java_properties() == {
        "bootstrap.servers": "kafka.example:9094",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": f"{SHADED}.security.scram.ScramLoginModule required "
        'username="shop" password="${env:UIC_STREAM__SECURITY__PASSWORD}";',
        "ssl.endpoint.identification.algorithm": "https",
        "config.providers": "env",
        "config.providers.env.class": f"{SHADED}.config.provider.EnvVarConfigProvider",
    }
    assert brokers.java_environment() == {"UIC_STREAM__SECURITY__PASSWORD": "s3cret"}


def test_a_password_with_a_quote_has_a_variable_with_the_escapes_of_jaas() -> None:
    brokers = brokers_of(settings(**LOGIN | {"password": 'a"b\\c', "username": 'x"y'}))
    jaas = brokers.java_properties()["sasl.jaas.config"]
    assert 'username="x\\"y" password="${env:UIC_STREAM_QUOTED_PASSWORD}";' in jaas
    assert brokers.java_environment()["UIC_STREAM_QUOTED_PASSWORD"] == 'a\\"b\\\\c'


def test_a_cluster_without_the_variables_of_the_login_is_told_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brokers = brokers_of(settings(**LOGIN | {"password": 'a"b'}))
    monkeypatch.setenv("UIC_STREAM__SECURITY__PASSWORD", 'a"b')
    with pytest.raises(BadInputError, match=r"set UIC_STREAM_QUOTED_PASSWORD in job and task"):
        brokers.check_environment()
    monkeypatch.setenv("UIC_STREAM_QUOTED_PASSWORD", 'a\\"b')
    brokers.check_environment()
    load_config(None)


def test_java_reads_certificate_and_key_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "own.key").write_text("-----BEGIN PRIVATE KEY-----")
    files = {
        "ca_file": tmp_path / "ca.pem",
        "cert_file": tmp_path / "ca.pem",
        "key_file": tmp_path / "own.key",
    }
    found = brokers_of(settings(protocol="ssl", **files)).java_properties()
    assert found["ssl.truststore.location"] == str(tmp_path / "ca.pem")
    assert found["ssl.keystore.key"] == f"${{files:{tmp_path}:own.key}}"
    assert found["ssl.keystore.certificate.chain"] == f"${{files:{tmp_path}:ca.pem}}"
    assert found["config.providers.files.class"].endswith("DirectoryConfigProvider")


def test_a_plan_holds_no_password_and_its_reader_takes_it_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = settings(**LOGIN).model_dump_json()
    assert "s3cret" not in text
    assert "*" not in text
    read = StreamSettings.model_validate_json(text)
    monkeypatch.delenv("UIC_STREAM__SECURITY__PASSWORD", raising=False)
    with pytest.raises(BadInputError, match=r"not set.*set UIC_STREAM__SECURITY__PASSWORD"):
        brokers_of(read)
    monkeypatch.setenv("UIC_STREAM__SECURITY__PASSWORD", "s3cret")
    assert brokers_of(read) == brokers_of(settings(**LOGIN))


def test_the_manuals_example_is_a_login_over_tls_with_a_certificate_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manual = Path("docs/operations.md").read_text(encoding="utf-8")
    examples = re.findall(
        r"<!-- read by tests/jobs/stream/test_brokers.py -->\n```yaml\n(.*?)```", manual, re.DOTALL
    )
    assert len(examples) == 1
    path = tmp_path / "uic.yaml"
    path.write_text(examples[0])
    monkeypatch.setenv("UIC_STREAM__SECURITY__PASSWORD", "s3cret")
    stream = load_config(path).stream
    settings = Brokers(stream.brokers, stream.security).client_settings()
    assert settings["sasl.password"] == "s3cret"
    assert settings["ssl.key.location"] == "/etc/uic/client.key"
    with pytest.raises(BadInputError, match=r"ca_file: /etc/uic/kafka-ca\.pem: cannot be read"):
        brokers_of(stream)


def test_a_quote_in_a_name_or_a_path_does_not_end_the_text_of_sql() -> None:
    options = brokers_of(settings(**LOGIN | {"username": "it's"})).flink_options()
    assert "'properties.sasl.mechanism' = 'SCRAM-SHA-512', " in options
    assert """ required username="it''s" password=""" in options


def test_no_text_of_brokers_has_the_password() -> None:
    brokers = Brokers("kafka.example:9094", StreamSecurity(**LOGIN))
    assert "s3cret" not in f"{brokers} {brokers!r}"


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path, name: str) -> None:
    openssl(
        tmp_path,
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-x509"),
        *("-keyout", "a.key", "-out", "a.pem"),
    )
    files = {
        "ca_file": tmp_path / "a.pem",
        "cert_file": tmp_path / "a.pem",
        "key_file": tmp_path / "a.key",
    }
    brokers_of(settings(protocol="SSL", **files))
    with pytest.raises(BadInputError, match=rf"stream\.security\.{name}: /no/file: cannot be read"):
        brokers_of(settings(protocol="SSL", **files | {name: "/no/file"}))
    (tmp_path / "empty").touch()
    with pytest.raises(BadInputError, match=r"has no (private key|certificate) in PEM format"):
        brokers_of(settings(protocol="SSL", **files | {name: tmp_path / "empty"}))


@pytest.mark.parametrize("words", [("-traditional",), ("-aes256", "-passout", "pass:x")])
def test_a_key_that_java_does_not_read_is_refused_with_the_command(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    openssl(tmp_path, "genrsa", *words, "-out", "a.key", "2048")
    (tmp_path / "a.pem").write_text("-----BEGIN CERTIFICATE-----")
    files = {"cert_file": tmp_path / "a.pem", "key_file": tmp_path / "a.key"}
    with pytest.raises(BadInputError, match=r"key_file: .*PKCS 8.*openssl pkcs8 -topk8 -nocrypt"):
        brokers_of(settings(protocol="SSL", **files))
