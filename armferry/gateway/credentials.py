"""TLS credentials in the files that QEMU's tls-creds-x509 object reads.

In one folder: ca-cert.pem and, if there is one, ca-crl.pem; server-cert.pem and server-key.pem
for the side that listens; client-cert.pem and client-key.pem for the side that connects
(QEMU's docs/system/tls.rst). Both sides must show a certificate; nothing below TLS 1.2.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armferry.gateway.errors import CredentialError

__all__ = ["connecting_context", "listening_context", "names_of"]

_CA = "ca-cert.pem"
_CRL = "ca-crl.pem"
_ATTRIBUTES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "EMAIL",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "userId": "UID",
}


def listening_context(folder: Path) -> ssl.SSLContext:
    """Accepts clients that show a certificate of the authority. Raises CredentialError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _fill(context, folder, "server")


def connecting_context(folder: Path) -> ssl.SSLContext:
    """Connects to a server whose certificate names its host. Raises CredentialError."""
    return _fill(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), folder, "client")


def names_of(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """What a peer may be called whose `certificate` is as ssl's getpeercert gives it.

    Its distinguished name as QEMU's tls-authz compares it ("C=GB,O=Example,CN=host1", in the order
    of the certificate), the same in the order of RFC 4514, and its common name alone.
    """
    parts = [
        (_ATTRIBUTES.get(kind, kind), value)
        for relative in certificate.get("subject", ())
        for kind, value in relative
    ]
    whole = [f"{kind}={value}" for kind, value in parts]
    common = [value for kind, value in parts if kind == "CN"]
    return (",".join(whole), ",".join(reversed(whole)), *common)


def _fill(context: ssl.SSLContext, folder: Path, end: str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = folder / f"{end}-cert.pem", folder / f"{end}-key.pem"
    for path in (folder / _CA, certificate, key):
        if not path.is_file():
            raise CredentialError(
                f"{path}: missing; the folder must hold {_CA}, {end}-cert.pem and {end}-key.pem, "
                "as for QEMU's tls-creds-x509"
            )
    try:
        context.load_verify_locations(folder / _CA)
        if (folder / _CRL).is_file():
            context.load_verify_locations(folder / _CRL)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if b"ENCRYPTED" in key.read_bytes():
            raise CredentialError(
                f"{key}: the key has a passphrase, and nobody is asked for one while a guest "
                "waits; give a key without (openssl pkey -in KEY -out NEW), readable by nobody else"
            )
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise CredentialError(
            f"{folder}: the {end}'s certificate and key cannot be used: {error}"
        ) from error
    return context
