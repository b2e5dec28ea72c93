# SPDX-License-Identifier: Apache-2.0
"""The authorities that AWS IoT's endpoints are signed by: taken from a locked package, checked against their digests."""

import hashlib
import re
import ssl
from pathlib import Path

import certifi
from cryptography import x509

from linewatch_fleet.errors import BadInput, CommandFailed

# SHA-256 of the DER form, as the authority publishes it: Amazon Root CA 1 (RSA) and 3 (ECDSA).
ROOTS = {
    "Amazon Root CA 1": "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "Amazon Root CA 3": "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def root_certificates(given: Path | None) -> bytes:
    """The authorities for a device (PEM): the file given, or Amazon's. Raises BadInput, CommandFailed."""
    if given is not None:
        try:
            content = given.read_bytes()
            x509.load_pem_x509_certificates(content)
        except (OSError, ValueError) as error:
            raise BadInput(f"--ca-file {given}: no certificates in PEM form: {error}") from error
        return content
    wanted = dict.fromkeys(ROOTS.values(), "")
    for pem in _PEM.findall(Path(certifi.where()).read_text(encoding="utf-8")):
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        if digest in wanted:
            wanted[digest] = pem if pem.endswith("\n") else pem + "\n"
    for name, digest in ROOTS.items():
        if not wanted[digest]:
            raise CommandFailed(f"{name} is not among this environment's authorities; give it with --ca-file")
    return "".join(wanted.values()).encode()
