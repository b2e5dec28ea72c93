# SPDX-License-Identifier: Apache-2.0
"""The far end of the uplink: mosquitto with mutual TLS in a container of the device's network, and all that it heard."""

import datetime
import os
from pathlib import Path

from brokers import wait_for
from conformance.engine import docker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from faults.sink import events_of

IMAGE = "eclipse-mosquitto:2.0.21"
HOST, PORT = "uplink", 8883

CONFIGURATION = """\
per_listener_settings true
listener 8883
cafile /uplink/ca.pem
certfile /uplink/server.pem
keyfile /uplink/server.key
require_certificate true
use_identity_as_username true
max_inflight_messages 1000
max_queued_messages 100000
listener 1884 127.0.0.1
allow_anonymous true
max_queued_messages 100000
"""
# Somebody has to take what is published, or mosquitto says so (0x10), and the forwarder keeps the event.
COMMAND = """mosquitto -c /uplink/mosquitto.conf & cd /uplink
until mosquitto_sub -V 5 -p 1884 -i recorder -q 1 -t 'linewatch/#' -F %p >>heard; do sleep 0.2; done & wait"""


class Uplink:
    """`folder` gets the certificates and the file `heard`."""

    def __init__(self, folder: Path, name: str, network: str) -> None:
        self.folder = folder
        self.name = name
        self._network = network
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        _certificates(folder)
        (folder / "mosquitto.conf").write_text(CONFIGURATION)
        (folder / "heard").touch()
        for path in folder.iterdir():
            path.chmod(0o666)
            if os.geteuid() == 0:
                os.chown(path, 1883, 1883)

    def hand_over(self, into: Path) -> None:
        """What whoever provisions a device puts there."""
        into.mkdir(parents=True, exist_ok=True)
        for theirs, ours in (
            ("ca.pem", "ca.pem"),
            ("device.pem", "certificate.pem"),
            ("device.key", "key.pem"),
        ):
            (into / ours).write_bytes((self.folder / theirs).read_bytes())
            (into / ours).chmod(0o600)

    def start(self) -> None:
        docker(
            "run", "-d", "--rm", "--init", "--name", self.name, "--network", self._network, "--network-alias", HOST,
            "-v", f"{self.folder}:/uplink", "--entrypoint", "sh", IMAGE, "-c", COMMAND,
        )  # fmt: skip
        wait_for(self._records, "the uplink takes what is published", 120)

    def _records(self) -> bool:
        said = ("mosquitto_pub", "-p", "1884", "-q", "1", "-t", "linewatch/hello", "-m", "hello")
        docker("exec", self.name, *said, check=False)
        return "hello" in (self.folder / "heard").read_text()

    def heard(self) -> list[dict[str, object]]:
        """Every event in the order of arrival, repeats and all; batches taken apart."""
        lines = (self.folder / "heard").read_text().splitlines()
        publishes = [line for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for publish in publishes for event in events_of(publish)]


def _certificates(folder: Path) -> None:
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server", "device")}
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Linewatch test CA")])
    for name, common_name in (("ca", ""), ("server", HOST), ("device", "device-1-forwarder")):
        is_ca = name == "ca"
        subject = authority if is_ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        public = keys[name].public_key()
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(authority).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                    key_agreement=False, key_cert_sign=is_ca, crl_sign=is_ca, encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
        )  # fmt: skip
        if not is_ca:
            names = x509.SubjectAlternativeName([x509.DNSName(common_name)])
            builder = builder.add_extension(names, critical=False)
        made = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        if not is_ca:
            (folder / f"{name}.key").write_bytes(
                keys[name].private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
