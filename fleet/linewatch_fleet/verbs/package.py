# SPDX-License-Identifier: Apache-2.0
"""`linewatch package`: an ONNX file of one's own becomes a checked, signed model package.

The device's own loader takes the package before it is put in place (linewatch_models.package).
"""

import argparse
from pathlib import Path

import click

from linewatch_fleet import output
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.options import as_json, dry_run

PATH = click.Path(path_type=Path)


@click.command(name="package")
@click.option("--onnx", type=PATH, required=True, help="The fp32 graph.")
@click.option(
    "--description", type=PATH, required=True, help="What the model takes and gives: models/README.md."
)
@click.option("--int8", type=PATH, help="The same model, quantised.")
@click.option("--golden", type=PATH, help="Folder of samples; else golden/ beside the description.")
@click.option("--card", type=PATH, help="Model card; else card.md beside the description.")
@click.option("--licence", type=PATH, multiple=True, help="Licence or attribution file; else those beside the description.")  # fmt: skip
@click.option("--signing-key", type=PATH, help="Ed25519 private key (PEM); else this checkout's own, below build/signing.")  # fmt: skip
@click.option("--out", type=PATH, help="Else models/<name>/releases/<version>.")
@dry_run
@as_json
def command(
    onnx: Path, description: Path, int8: Path | None, golden: Path | None, card: Path | None,
    licence: tuple[Path, ...], signing_key: Path | None, out: Path | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a checked model package from an ONNX file.

    The graph and its description are checked, the golden samples are run, everything gets its digest and a signature,
    and the device's own loader takes the result before it is put in place. `linewatch publish --model DIR` makes a
    component of it.
    """
    # onnx and onnxruntime take their time to import.
    from linewatch_inference.errors import InferenceRefused
    from linewatch_inference.metadata_file import InvalidDescription
    from linewatch_models import package, signing

    asked = argparse.Namespace(
        onnx=onnx, description=description, int8=int8, golden=golden, card=card, licence=list(licence) or None
    )
    try:
        inputs = package.read_inputs(asked)
        name, version = inputs.description.model_name, inputs.description.model_version
        place = out or Path("models") / name / "releases" / version
        output.say(f"checking {name} {version}: {len(inputs.samples)} golden samples")
        files, judged = package.make_files(inputs)
        if dry_run:
            outcome, public = "would be made", None
        else:
            key, public = (signing.read_key(signing_key), None) if signing_key else signing.own_key(Path())
            outcome = package.release(inputs, files, key, place)
    except (InvalidDescription, signing.NoSigningKey, OSError) as error:
        raise BadInput(str(error)) from error
    except InferenceRefused as error:
        raise GateRefused(str(error)) from error
    told = {
        "model": name,
        "version": version,
        "outcome": outcome,
        "package": str(place),
        "graph_bytes": {variant: len(graph) for variant, graph in inputs.graphs.items()},
        "golden_samples": len(inputs.samples),
        "int8_same_result": judged.int8_same_result if int8 else None,
        "public_key": str(public) if public else None,
    }
    if as_json:
        output.document(told)
    else:
        output.table(
            ("WHAT", "VALUE"),
            [(key.replace("_", " "), value) for key, value in told.items() if value is not None],
        )
