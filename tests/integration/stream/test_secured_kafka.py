"""Kafka with TLS, logins and certificates: every client gets in, and no secret gets out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uic.jobs.config.security import StreamSecurity
from uic.jobs.drills.hostile.secured_kafka import PASSWORD, USER, SecuredKafka
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_link import BrokerAccessError, NoBrokerError
from uic.jobs.stream.topics.kafka_positions import next_events
from uic.jobs.stream.topics.kafka_topic import (
    describe_topic,
    end_offsets,
    largest_message,
)
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka
from uic.jobs.stream.topics.topic_guard import TopicGuard

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("kafka's own")) as server:
        yield server


def security(folder: Path, **changed: Any) -> StreamSecurity:
    """A login by SCRAM over TLS, with changes; None takes a setting away."""
    usual = {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": USER,
        "password": PASSWORD,
        "ca_file": folder / "ca.pem",
    }
    chosen = {name: value for name, value in (usual | changed).items() if value is not None}
    return StreamSecurity(**chosen)


NO_LOGIN = {"mechanism": None, "username": None, "password": None}
STRANGER = NO_LOGIN | {
    "protocol": "SSL",
    "cert_file": "other-ca.pem",
    "key_file": "other-ca.key",
}
OPEN = NO_LOGIN | {"protocol": "PLAINTEXT", "ca_file": None}


def certificate(folder: Path, name: str) -> dict[str, Any]:
    return {"cert_file": folder / f"{name}.pem", "key_file": folder / f"{name}.key"}


@pytest.mark.parametrize(
    ("listener", "changed"),
    [
        ("LOGIN", {"mechanism": "PLAIN"}),
        ("LOGIN", {"mechanism": "SCRAM-SHA-256"}),
        ("LOGIN", {"mechanism": "SCRAM-SHA-512"}),
        ("CLEAR", {"protocol": "SASL_PLAINTEXT", "ca_file": None}),
        ("MUTUAL", NO_LOGIN | {"protocol": "SSL"}),
        ("BOTH", {}),
    ],
)
def test_every_plain_client_gets_in(
    secured: SecuredKafka, listener: str, changed: dict[str, Any]
) -> None:
    if listener in {"MUTUAL", "BOTH"}:
        changed = changed | certificate(secured.folder, "client")
    brokers = Brokers(secured.at(listener), security(secured.folder, **changed))
    topic = f"ways-{listener}-{brokers.security.mechanism}".lower()
    secured.create_topic(topic, 1)
    users = np.arange(3, dtype=np.int64)
    send_to_kafka([Outgoing([b"{}"] * 3, users, users)], brokers, topic, Pace())
    found = describe_topic(brokers, topic)
    assert found.end == {0: 3} == end_offsets(brokers, topic, 1)
    assert next_events(brokers, topic, {0: 1}) == {0: 1}
    assert (found.partitions, largest_message(brokers, topic)) == (1, 1_048_588)
    TopicGuard(brokers, topic, found.topic_id, 1).confirm()
    assert [row.offset for row in read_topic(brokers, topic)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("listener", "changed", "says"),
    [
        ("LOGIN", {"password": "wrong"}, r"refused the login .*SCRAM-SHA-512.*SECURITY__PASSWORD"),
        ("LOGIN", {"mechanism": "PLAIN", "password": "wrong"}, "refused the login"),
        ("LOGIN", {"username": "stranger"}, "refused the login"),
        ("LOGIN", {"ca_file": "other-ca.pem"}, r"not signed by an authority.*security\.ca_file"),
        ("LOGIN", {"ca_file": None}, r"not signed by an authority.*security\.ca_file"),
        ("ELSEWHERE", {}, r"certificate is of another host; set stream\.brokers"),
        ("EXPIRED", {}, "certificate has expired; let its owner renew it"),
        ("LOGIN", OPEN, r"takes encrypted connections only; set stream\.security\.protocol: SSL"),
        ("LOGIN", {"protocol": "SASL_PLAINTEXT", "ca_file": None}, "protocol: SASL_SSL"),
        ("BOTH", {}, r"wants a certificate of ours.*cert_file"),
        ("MUTUAL", STRANGER, r"wants a certificate of ours, or refused it"),
        ("MUTUAL", NO_LOGIN | {"protocol": "SSL"}, r"wants a certificate of ours.*cert_file"),
    ],
)
def test_what_keeps_us_out_is_one_line_and_waiting_is_of_no_use(
    secured: SecuredKafka, listener: str, changed: dict[str, Any], says: str
) -> None:
    files = [name for name in ("ca_file", "cert_file", "key_file") if changed.get(name)]
    changed = changed | {name: secured.folder / changed[name] for name in files}
    brokers = Brokers(secured.at(listener), security(secured.folder, **changed))
    with pytest.raises(BrokerAccessError, match=says) as refused:
        describe_topic(brokers, "events")
    text = str(refused.value)
    assert text.startswith(secured.at(listener))
    assert "\n" not in text
    assert PASSWORD not in text
    assert not refused.value.passing


@pytest.mark.parametrize(
    ("listener", "changed"),
    [("CLEAR", {}), ("CLEAR", OPEN), ("LOGIN", NO_LOGIN | {"protocol": "SSL"})],
)
def test_a_broker_that_just_closes_connections_may_come_to_itself(
    secured: SecuredKafka, listener: str, changed: dict[str, Any]
) -> None:
    brokers = Brokers(secured.at(listener), security(secured.folder, **changed))
    with pytest.raises(NoBrokerError, match=r"want a login, or take no encryption"):
        describe_topic(brokers, "events")


def test_a_guard_that_is_locked_out_says_so(secured: SecuredKafka) -> None:
    wrong = security(secured.folder, password="wrong")
    guard = TopicGuard(Brokers(secured.at("LOGIN"), wrong), "events", "id", 1)
    with pytest.raises(BrokerAccessError, match="refused the login"):
        guard.confirm()
