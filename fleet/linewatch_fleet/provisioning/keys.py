# SPDX-License-Identifier: Apache-2.0
"""Private keys: made here, written once with mode 0600, never sent. AWS gets a signing request."""

import hashlib
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from linewatch_fleet.errors import BadInput

# What AWS makes itself, and what every version of both runtimes reads.
_BITS = 2048


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Writes a file whole or not at all, never readable by more than `mode` says; after a power cut, too."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def make_key(path: Path) -> None:
    """A new private key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    write_whole(path, pem, 0o600)


def signing_request(key_file: Path, thing: str) -> str:
    """The key's certificate signing request (PEM) for a thing."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, thing)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(_private(key_file), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def certificate_id(pem: str) -> str:
    """AWS's id of a certificate: the SHA-256 of its DER form."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def belongs(pem: str, key_file: Path) -> bool:
    """Whether a certificate is for this key."""
    public = x509.load_pem_x509_certificate(pem.encode()).public_key()
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(*form) == _private(key_file).public_key().public_bytes(*form)


def _private(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"{path}: no private key that can be read: {error}; give --replace-certificate"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadInput(f"{path}: no RSA key; give --replace-certificate")
    return key
