"""A broker as companies run it: TLS with certificates of clients, SCRAM and PLAIN, on loopback."""

from pathlib import Path
from typing import Final, Self

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import (  # where they are typed
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from uic.jobs.drills.hostile.certificates import make_certificates
from uic.jobs.stream.topics.kafka_server import KafkaServer, free_port

USER: Final = "shop"
# What must be escaped somewhere on the way: in SQL, in JAAS, in a shell, in YAML.
PASSWORD: Final = 'it\'s "so" \\safe\\ ${env:HOME}; x=1'  # noqa: S105 - the drill's own

# Name of the listener, protocol, the server's certificate, whether it wants the client's.
_LISTENERS: Final = (
    ("LOGIN", "SASL_SSL", "server", False),
    ("MUTUAL", "SSL", "server", True),
    ("BOTH", "SASL_SSL", "server", True),
    ("CLEAR", "SASL_PLAINTEXT", None, False),
    ("ELSEWHERE", "SASL_SSL", "elsewhere", False),
    ("EXPIRED", "SASL_SSL", "expired", False),
)


class SecuredKafka(KafkaServer):
    """One broker with a listener for each way in; the plain one is for its owner.

    Args:
        folder: of its data, logs and certificates.
        jars_root: as of `KafkaServer`.
    """

    def __init__(self, folder: Path, jars_root: Path | None = None) -> None:
        super().__init__(folder, jars_root=jars_root)
        self.ports = {name: free_port() for name, *_ in _LISTENERS}

    def at(self, listener: str) -> str:
        """Bootstrap servers of one of the listeners."""
        return f"127.0.0.1:{self.ports[listener]}"

    def start(self) -> Self:
        """Start it, and make the user of SCRAM."""
        super().start()
        client = AdminClient({"bootstrap.servers": self.brokers})
        for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            secret = ScramCredentialInfo(kind, 4096)
            user = UserScramCredentialUpsertion(USER, secret, PASSWORD.encode())
            client.alter_user_scram_credentials([user])[USER].result(30)
        return self

    def _write_settings(self, settings: Path) -> None:
        super()._write_settings(settings)
        make_certificates(self.folder)
        text = settings.read_text()
        # The last line of a name counts.
        places = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        ours = [f"{name}://127.0.0.1:{self.ports[name]}" for name, *_ in _LISTENERS]
        quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        modules = "org.apache.kafka.common.security"
        login = f'{modules}.plain.PlainLoginModule required user_{USER}="{quoted}";'
        scram = f"{modules}.scram.ScramLoginModule required;"
        lines = [
            f"listeners={','.join([places['listeners'], *ours])}",
            f"advertised.listeners={','.join([places['advertised.listeners'], *ours])}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{protocol}" for name, protocol, *_ in _LISTENERS),
            "inter.broker.listener.name=PLAINTEXT",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        ]
        for name, protocol, certificate, wants_ours in _LISTENERS:
            own = f"listener.name.{name.lower()}."
            if "SASL" in protocol:
                escaped = login.replace("\\", "\\\\")
                lines += [
                    f"{own}plain.sasl.jaas.config={escaped}",
                    f"{own}scram-sha-256.sasl.jaas.config={scram}",
                    f"{own}scram-sha-512.sasl.jaas.config={scram}",
                ]
            if certificate:
                both = self.folder / f"{certificate}-both.pem"
                both.write_text(
                    (self.folder / f"{certificate}.key").read_text()
                    + (self.folder / f"{certificate}.pem").read_text()
                )
                lines += [
                    f"{own}ssl.keystore.type=PEM",
                    f"{own}ssl.keystore.location={both}",
                    f"{own}ssl.truststore.type=PEM",
                    f"{own}ssl.truststore.location={self.folder / 'ca.pem'}",
                    f"{own}ssl.client.auth={'required' if wants_ours else 'none'}",
                ]
        settings.write_text(text + "\n".join(lines) + "\n")
