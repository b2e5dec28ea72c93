# SPDX-License-Identifier: Apache-2.0
"""A release's signature: ours, and cosign's."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from linewatch_fleet.errors import BadInput
from linewatch_fleet.signing import make_keys, read_private_key, read_public_key, sign, signer

# Made with cosign 2.5.0: `cosign sign-blob --tlog-upload=false --key cosign.key --output-signature - FILE`.
COSIGN_CONTENT = b"schema: linewatch.release/v1\n"
COSIGN_SIGNATURE = (
    b"MEUCIA4bsuMIaNHP2dXYmAeIy6mc8t/vtSmw6t5D8CQvA+CtAiEA66j10eIfnPJABLUt6DQh1///7+Oc7TdtVtZzGca5l88="
)
COSIGN_PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEr9XAuTAReVOomBQxctwz6XnE7WFI
bCb9yxf4JOMRJTl/vMd8zFjjJesfuOMR21uxW6Rab69brLqXh7NdXYxMNw==
-----END PUBLIC KEY-----
"""

KINDS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "release.key", tmp_path / "release.pem"
    make_keys(private, public, None)
    return private, public


def test_what_was_signed_is_told_from_what_was_changed(keys: tuple[Path, Path]) -> None:
    private, public = keys
    signature = sign(b"release", read_private_key(private, None))

    assert signer(b"release", signature, [public]) == public
    assert signer(b"releasf", signature, [public]) is None


def test_another_key_does_not_count(keys: tuple[Path, Path], tmp_path: Path) -> None:
    signature = sign(b"release", read_private_key(keys[0], None))
    make_keys(tmp_path / "other.key", tmp_path / "other.pem", None)

    assert signer(b"release", signature, [tmp_path / "other.pem"]) is None
    assert signer(b"release", signature, [tmp_path / "other.pem", keys[1]]) == keys[1]


@pytest.mark.parametrize("signature", [b"", b"not base64!", b"AAAA"])
def test_what_is_no_signature_is_none(keys: tuple[Path, Path], signature: bytes) -> None:
    assert signer(b"release", signature, [keys[1]]) is None


def test_a_private_key_is_its_owners_alone_and_never_overwritten(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    before = keys[0].read_bytes()

    with pytest.raises(BadInput, match="is there already"):
        make_keys(*keys, None)

    assert keys[0].read_bytes() == before


def test_an_encrypted_key_wants_its_password(tmp_path: Path) -> None:
    private, public = tmp_path / "release.key", tmp_path / "release.pem"
    make_keys(private, public, b"geheim")

    with pytest.raises(BadInput, match="--password-file"):
        read_private_key(private, None)
    with pytest.raises(BadInput, match="wrong password"):
        read_private_key(private, b"falsch")
    assert signer(b"x", sign(b"x", read_private_key(private, b"geheim")), [public]) == public


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_other_kinds_are_refused_with_the_remedy(kind: str, tmp_path: Path) -> None:
    key = KINDS[kind]()
    private, public = tmp_path / "a.key", tmp_path / "a.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    for read in (lambda: read_private_key(private, None), lambda: read_public_key(public)):
        with pytest.raises(BadInput, match=r"EC key on P-256.*linewatch release keys"):
            read()


def test_a_private_key_among_the_trusted_ones_is_refused(keys: tuple[Path, Path]) -> None:
    with pytest.raises(BadInput, match="is a private key"):
        read_public_key(keys[0])


def test_cosigns_own_key_format_is_explained(tmp_path: Path) -> None:
    (tmp_path / "cosign.key").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n")

    with pytest.raises(BadInput, match="cosign sign-blob"):
        read_private_key(tmp_path / "cosign.key", None)


def test_a_signature_that_cosign_made_is_understood(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text(COSIGN_PUBLIC_KEY)

    assert signer(COSIGN_CONTENT, COSIGN_SIGNATURE, [tmp_path / "cosign.pub"])
    assert not signer(COSIGN_CONTENT + b"#", COSIGN_SIGNATURE, [tmp_path / "cosign.pub"])
