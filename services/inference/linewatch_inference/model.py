# SPDX-License-Identifier: Apache-2.0
"""A model in service: part -> preprocess -> graph -> postprocess -> verdict."""

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from linewatch_inference import golden
from linewatch_inference.errors import InferenceRefused, ModelFault, PackageRefused
from linewatch_inference.metadata import Description
from linewatch_inference.package import GRAPHS, Package
from linewatch_inference.postprocess import heat_for_people, judge
from linewatch_inference.preprocess import prepare
from linewatch_inference.session import Session, SessionOptions, Tensors
from linewatch_inference.verdict import Inspected, Part, Reference, Timings, Verdict


class Model:
    """One graph of one package. Stateless between calls, and safe to call from several threads."""

    def __init__(self, description: Description, session: Session, reference: Reference) -> None:
        self.description = description
        self.session = session
        self.reference = reference
        self._roles = dict(description.outputs)

    def inspect(self, part: Part, *, with_heatmap: bool = False) -> Inspected:
        """Judges one part.

        Raises:
            PartRefused: the part can't be judged.
            ModelFault: the graph failed.
        """
        verdict, outputs, timings = self.judged(part)
        heatmap = heat_for_people(self.description, outputs) if with_heatmap else None
        return Inspected(verdict, timings, heatmap)

    def judged(self, part: Part) -> tuple[Verdict, Tensors, Timings]:
        """The verdict with the graph's outputs by role that it comes from; for golden samples and evaluation."""
        started = time.perf_counter()
        prepared = prepare(self.description, part)
        ready = time.perf_counter()
        outputs = self.by_role(prepared.tensor)
        predicted = time.perf_counter()
        verdict = judge(self.description, outputs, prepared.source_size, prepared.quality_flags)
        ended = time.perf_counter()
        return verdict, outputs, Timings(0.0, ready - started, predicted - ready, ended - predicted)

    def by_role(self, tensor: NDArray[np.generic]) -> Tensors:
        """The graph's outputs by role for an input tensor as it is."""
        outputs = self.session.run({self.description.input.name: tensor}, list(self._roles.values()))
        return {role: outputs[name] for role, name in self._roles.items()}


def open_model(package: Package, variant: str, options: SessionOptions) -> Model:
    """Loads a package's graph and asks it for its golden outputs; int8 where the package has one.

    Raises:
        PackageRefused: the graph is not as described, or gives other outputs here than where it was packaged.
    """
    variant = variant if GRAPHS[variant] in package.files else "fp32"
    session = Session(package.files[GRAPHS[variant]], options)
    check_tensors(package.metadata, session)
    metadata = package.metadata
    trained_on = f"sha256:{metadata.training_data.sha256}" if metadata.training_data else ""
    reference = Reference(
        metadata.model_name, metadata.model_version, package.digest, variant, session.provider, trained_on
    )
    model = Model(metadata, session, reference)
    _check_golden(package, model)
    return model


def model_of(
    description: Description, graph: bytes, variant: str, digest: str, options: SessionOptions
) -> Model:
    """A graph and its description as a model, without golden samples. Raises PackageRefused."""
    session = Session(graph, options)
    check_tensors(description, session)
    reference = Reference(
        description.model_name, description.model_version, digest, variant, session.provider
    )
    return Model(description, session, reference)


def check_tensors(description: Description, session: Session) -> None:
    """Passes a session whose tensors are those of the description. Raises PackageRefused."""
    spec = description.input
    if list(session.inputs) != [spec.name]:
        raise PackageRefused(
            f"input.name: the graph's inputs are {', '.join(session.inputs)}, not {spec.name} alone"
        )
    tensor = session.inputs[spec.name]
    if tensor.dtype != spec.dtype:
        raise PackageRefused(
            f"input.dtype: the graph takes {tensor.dtype}, the description says {spec.dtype}"
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        size in {-1, told} for size, told in zip(tensor.shape[1:], description.part_shape, strict=True)
    )
    if not fits or tensor.shape[0] not in {-1, 1}:
        raise PackageRefused(
            f"input.shape: the graph takes {tensor.shape}, the description says {spec.shape}"
        )
    for role, name in description.outputs.items():
        if name not in session.outputs:
            raise PackageRefused(
                f"outputs.{role}: the graph has no output {name}; it has {', '.join(session.outputs)}"
            )


def _check_golden(package: Package, model: Model) -> None:
    variant = model.reference.variant
    where = package.metadata.golden.expected
    tolerance = package.metadata.golden.tolerance.get("int8" if variant == "int8" else "fp32", 0.0)
    for name, expected in golden.expectations(package.files[where], where, variant):
        if name not in package.files:
            raise PackageRefused(f"{where}: names {name}, which the package does not hold")
        try:
            _, outputs, _ = model.judged(golden.sample_part(name, package.files[name]))
        except (InferenceRefused, ModelFault) as error:
            raise PackageRefused(f"{name}: the golden sample can't be judged: {error}") from error
        for role, difference in golden.differences(outputs, expected).items():
            if difference > tolerance:
                raise PackageRefused(
                    f"{name}: golden output {role} is off by {difference:.4g} on {model.reference.execution_provider},"
                    f" at most {tolerance:g}; package the model again for this kind of machine"
                )


def with_queue(inspected: Inspected, queue_s: float) -> Inspected:
    """The same, with the time that the part waited for a worker."""
    return replace(inspected, timings=replace(inspected.timings, queue_s=queue_s))
