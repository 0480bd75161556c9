"""Authorities and certificates for drills and tests, made with openssl, valid for two days."""

import subprocess
from pathlib import Path
from typing import Final

_LOOPBACK: Final = "IP:127.0.0.1,IP:::1,DNS:localhost"


def openssl(folder: Path, *words: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(  # noqa: S603 - our own arguments
        ["openssl", *words],  # noqa: S607 - of the machine
        cwd=folder,
        check=True,
        capture_output=True,
    )


def make_certificates(folder: Path) -> None:
    """`ca.pem` and what it signed, each as NAME.pem and NAME.key (PKCS 8).

    `server` is of this machine's loopback, `elsewhere` of another host, `expired` of loopback until
    yesterday, `client` of a client. `other-ca.pem` has signed none of them.
    """
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    for name in ("ca", "other-ca"):
        openssl(
            folder,
            *(*new, f"/CN={name}", "-x509", "-days", "2"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    names = {
        "server": (_LOOPBACK, "2"),
        "elsewhere": ("DNS:kafka.example", "2"),
        "expired": (_LOOPBACK, "-1"),
        "client": ("DNS:client.example", "2"),
    }
    for name, (hosts, days) in names.items():
        openssl(folder, *new, f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(f"subjectAltName={hosts}\n")
        openssl(
            folder,
            *("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", days, "-extfile", f"{name}.ext"),
            *("-in", f"{name}.csr", "-out", f"{name}.pem"),
        )
