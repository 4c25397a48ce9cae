"""Who may talk to the server: its own certificate authority, one bearer token, and the kubeconfig that holds both.

Everything is made on the first start and kept in the data directory, readable by its owner alone. There is one user,
who may do everything, as on a laptop's own cluster; whoever has no token gets nothing but the health checks.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import secrets
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: The user that the token stands for; `system:masters` may do everything on any Kubernetes API server.
USER = "embedded-admin"

_AUTHORITY_LIFETIME = timedelta(days=3650)
_SERVER_LIFETIME = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the server and its clients need. The token is a secret, and so it is left out of the representation."""

    directory: Path
    _token: bytes

    def __repr__(self) -> str:
        return f"Credentials({str(self.directory)!r})"

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, with the server's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.directory / "server.crt", self.directory / "server.key")
        return context

    def accepts(self, authorization: bytes) -> bool:
        """Whether an `Authorization` header carries the token. Takes the same time for every wrong one."""
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    def write_kubeconfig(self, path: Path, url: str) -> None:
        """A kubeconfig with one context, `embedded`. JSON, which every reader of kubeconfigs takes as YAML."""
        authority = base64.b64encode((self.directory / "ca.crt").read_bytes()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "embedded", "cluster": {"server": url, "certificate-authority-data": authority}}],
            "users": [{"name": USER, "user": {"token": self._token.decode()}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": USER}}],
            "current-context": "embedded",
        }
        _write(path, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def credentials(directory: Path, host: str, now: datetime) -> Credentials:
    """The credentials kept in `directory`, made where they are missing; the server's certificate is renewed in time."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = directory / "token"
    if not token.exists():
        _write(token, secrets.token_urlsafe(32).encode())
    if not (directory / "ca.key").exists():
        _make_authority(directory, now)
    if not _is_good(directory / "server.crt", host, now):
        _make_server_certificate(directory, host, now)
    return Credentials(directory, token.read_bytes())


def _make_authority(directory: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder("Trueup embedded certificate authority", key, now, _AUTHORITY_LIFETIME)
        .issuer_name(_name("Trueup embedded certificate authority"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    _write_pair(directory, "ca", key, _signed(builder, key))


def _make_server_certificate(directory: Path, host: str, now: datetime) -> None:
    authority = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        _builder("Trueup embedded API server", key, now, _SERVER_LIFETIME)
        .issuer_name(authority.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
    )
    _write_pair(directory, "server", key, _signed(builder, signer))


def _is_good(path: Path, host: str, now: datetime) -> bool:
    if not path.exists() or not path.with_suffix(".key").exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return ipaddress.ip_address(host) in addresses and certificate.not_valid_after_utc > now + _RENEW_BEFORE


def _builder(name: str, key: EllipticCurvePrivateKey, now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    # Five minutes back: a container on the same machine may run a clock that is a little late.
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(builder: x509.CertificateBuilder, signer: EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(signer, hashes.SHA256())


def _write_pair(directory: Path, name: str, key: EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(directory / f"{name}.key", private)
    _write(directory / f"{name}.crt", certificate.public_bytes(pem))


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
