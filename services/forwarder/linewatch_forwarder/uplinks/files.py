# SPDX-License-Identifier: Apache-2.0
"""Looks at the uplink's certificate files before the start: what TLS would say of them names neither file nor remedy."""

import os
import ssl
from pathlib import Path

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


def check(ca_file: Path, certificate_file: Path, key_file: Path) -> None:
    """Raises ValueError that names the variable and the remedy. Dates and names are for the handshake to judge."""
    ca = _read("CA", ca_file)
    certificate = _read("CERTIFICATE", certificate_file)
    key = _read("KEY", key_file)
    _holds("CA", ca_file, ca, _CERTIFICATE, "a CA certificate; put Amazon's root CA there")
    _holds(
        "CERTIFICATE", certificate_file, certificate, _CERTIFICATE, "a certificate; put this device's there"
    )
    _holds("KEY", key_file, key, _KEY, "a private key; put the one of this device's certificate there")
    if any(mark in key for mark in _ENCRYPTED):
        raise ValueError(
            f"{_variable('KEY')}: {key_file} is encrypted, and nobody is there to ask; decrypt it"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise ValueError(
            f"{_variable('CA')}: {ca_file} is damaged ({error.reason}); copy it again"
        ) from error
    try:
        context.load_cert_chain(certificate_file, key_file)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(
                f"{_variable('KEY')}: {key_file} is not the key of {certificate_file}; put the two that were made together"
            ) from error
        raise ValueError(
            f"{_variable('CERTIFICATE')}, {_variable('KEY')}: {certificate_file} or {key_file} is damaged"
            f" ({error.reason or error}); copy both again"
        ) from error


def _variable(name: str) -> str:
    return f"FORWARDER_UPLINK_{name}_FILE"


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        problem = "there is no such file; put it there, or name the right one"
    except IsADirectoryError:
        # Docker makes a folder where a file that it is to mount does not exist.
        problem = "is a directory; put the file there, and remove the directory first if a mount made it"
    except PermissionError:
        problem = (
            f"user {os.geteuid()} may not read it; give the file to that user with mode 0400, "
            "and let it enter the folders above"
        )
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    raise ValueError(f"{_variable(name)}: {path}: {problem}")


def _holds(name: str, path: Path, content: bytes, mark: bytes, wanted: str) -> None:
    if mark not in content:
        raise ValueError(f"{_variable(name)}: {path} does not hold, in PEM form, {wanted}")
