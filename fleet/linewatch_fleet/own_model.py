# SPDX-License-Identifier: Apache-2.0
"""A user's own model package on its way to a component: what devices would refuse is refused here."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from linewatch_fleet.config import Environment
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.recipes import MODELS
from linewatch_fleet.recipes.render import Component, key_bodies, model

_FIELD = "configuration: io.linewatch.Inference: TrustedKeys"


def component_of(package: Path, environment: Environment, bucket: str) -> Component:
    """The component of a package that devices of the environment will take.

    The signature is checked with the keys that devices have: those of the release and TrustedKeys of fleet.yaml. The
    golden samples are run on this machine.

    Raises:
        BadInput: it is no package, or fleet.yaml has a key that is none.
        GateRefused: signature, digests, graph or golden samples do not hold.
    """
    # onnxruntime takes its time to import.
    from linewatch_inference.errors import InferenceRefused
    from linewatch_inference.metadata_file import InvalidDescription
    from linewatch_inference.model import open_model
    from linewatch_inference.package import GRAPHS, METADATA, read_package
    from linewatch_inference.session import SessionOptions

    package = package.resolve()
    if not (package / METADATA).is_file():
        raise BadInput(
            f"{package} is no model package: it has no {METADATA}; make one with `linewatch package`"
        )
    try:
        found = read_package(package, trusted_keys(environment))
        for variant, graph in GRAPHS.items():
            if graph in found.files:
                open_model(found, variant, SessionOptions())
    except InvalidDescription as error:
        raise BadInput(str(error)) from error
    except InferenceRefused as error:
        hint = f"; for a key of your own, fleet.yaml: {_FIELD}" if "trusted keys" in str(error) else ""
        raise GateRefused(
            f"devices of {environment.name} would refuse this package: {error}{hint}"
        ) from error
    return model(found.metadata.model_name, package, bucket)


def trusted_keys(environment: Environment) -> Sequence[Ed25519PublicKey]:
    """The keys that devices of the environment trust. Raises BadInput, naming the field."""
    own = environment.configuration.get("io.linewatch.Inference", {}).get("TrustedKeys", "")
    keys = []
    for body in [*key_bodies(MODELS / "trusted-keys").split(","), *filter(None, own.split(","))]:
        pem = f"-----BEGIN PUBLIC KEY-----\n{body.strip()}\n-----END PUBLIC KEY-----\n"
        try:
            key = load_pem_public_key(pem.encode())
        except ValueError as error:
            raise BadInput(f"fleet.yaml: {_FIELD}: {body[:16]}... is no public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise BadInput(f"fleet.yaml: {_FIELD}: {body[:16]}... is no Ed25519 key")
        keys.append(key)
    return keys
