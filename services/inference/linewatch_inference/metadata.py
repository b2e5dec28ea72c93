# SPDX-License-Identifier: Apache-2.0
"""What a model package says of itself: description.json before packaging, metadata.json after. Unknown keys are errors."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
ModelVersion = Annotated[str, StringConstraints(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

MAX_INPUT_VALUES = 3 * 16_777_216
"""Values of one part's tensor, at most: three channels of the largest image that is decoded."""

ROLES: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "segmentation": (frozenset({"score", "class_scores", "heatmap"}), frozenset()),
    "classification": (frozenset(), frozenset({"logits", "probabilities"})),
    "prognostics": (frozenset({"rul", "failure_mode_prob"}), frozenset({"p_fail_30", "severity"})),
}
"""Output roles of each model type: those it must have, those it may have. Classification has exactly one of its two."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Normalisation(_Strict):
    """value = (pixel * scale - mean) / std, per channel."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class Input(_Strict):
    """The graph's input."""

    name: str
    shape: tuple[int | str, ...]
    """Words are free dimensions; the first is the batch."""
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW", "NTC"] | None = None
    colour_order: Literal["GRAY", "RGB", "BGR"] | None = None
    resize: Literal["area", "linear"] = "linear"
    normalisation: Normalisation | None = None
    channels: tuple[str, ...] = ()
    """Names of a sensor window's channels, in order."""
    units: tuple[str, ...] = ()
    """Their units."""


class Thresholds(_Strict):
    """Where a score turns into a disposition: OK < review <= REVIEW < ng <= NG."""

    ng: Share
    review: Share
    class_: dict[str, Share] = Field(default_factory=dict, alias="class")
    """Per defect class: the score from which the class is called present."""
    region: dict[str, Share] = Field(default_factory=dict)
    """Per defect class: the heat from which a place belongs to a region."""


class Quality(_Strict):
    """Limits of a picture that can be judged well, on its grey levels 0..255; outside them it is flagged."""

    min_mean: float | None = None
    max_mean: float | None = None
    min_laplacian_var: float | None = None
    min_width: int | None = None
    min_height: int | None = None


class FrozenGuard(_Strict):
    """Refuses a window in which one of `channels` repeats its value over the last `min_equal` records."""

    channels: tuple[int | str, ...]
    """Indexes, or names of `input.channels`."""
    min_equal: int = Field(default=10, ge=2)


class RegimesGuard(_Strict):
    """Refuses a window with a record further than `max_distance` from every known operating point."""

    channels: tuple[int | str, ...]
    points: tuple[tuple[float, ...], ...]
    scale: tuple[float, ...]
    """Each channel is divided by its scale before the Euclidean distance is taken."""
    max_distance: float = Field(gt=0.0)


class Guards(_Strict):
    """What a sensor window must keep to be judged at all. Values are always checked to be finite."""

    frozen: FrozenGuard | None = None
    regimes: RegimesGuard | None = None


class TimeToFailureMeaning(_Strict):
    """What the `rul` output counts."""

    unit: Literal["cycle", "hour"] = "cycle"
    horizon: float = Field(default=125.0, gt=0.0)
    """The largest value that the model tells; at it, say "more than"."""


class TrainingData(_Strict):
    """Where the weights come from."""

    name: str
    licence: str
    sha256: Digest
    """Over the training files."""


class File(_Strict):
    """One file of a package."""

    sha256: Digest
    size: int = Field(ge=0)


class Golden(_Strict):
    """Samples whose outputs must come out again on every machine that loads the package."""

    expected: str
    """The file with the expected outputs."""
    tolerance: dict[Literal["fp32", "int8"], float]
    """|value - expected| <= tolerance * (1 + |expected|), by variant."""


class Description(_Strict):
    """description.json."""

    model_name: ModelName
    model_version: ModelVersion
    model_type: Literal["segmentation", "classification", "prognostics"]
    framework: Literal["onnx"]
    target_devices: tuple[str, ...]
    output_classes: tuple[Label, ...] = Field(min_length=1)
    ok_classes: tuple[Label, ...] | None = None
    """Which classes are good. Left out: the first one. An empty list: a sorter, every part has a defect."""
    input: Input
    outputs: dict[str, str]
    """Role -> name of the graph's output."""
    thresholds: Thresholds
    failure_modes: dict[str, str] = Field(default_factory=dict)
    quality: Quality | None = None
    guards: Guards | None = None
    time_to_failure: TimeToFailureMeaning | None = None
    training_data: TrainingData | None = None
    licence: str
    attribution: str = ""
    parent_models: tuple[str, ...] = ()

    @property
    def good(self) -> tuple[str, ...]:
        """The good classes."""
        return self.output_classes[:1] if self.ok_classes is None else self.ok_classes

    @property
    def defects(self) -> tuple[str, ...]:
        """The other classes, in the package's order."""
        return tuple(label for label in self.output_classes if label not in self.good)

    @property
    def takes_windows(self) -> bool:
        """Whether a part is a sensor window; otherwise it is an image."""
        return self.model_type == "prognostics"

    @property
    def part_shape(self) -> tuple[int, ...]:
        """The input's shape without the batch."""
        return tuple(int(size) for size in self.input.shape[1:])

    @property
    def image_size(self) -> tuple[int, int, int]:
        """Height, width and channels that the graph wants."""
        first, second, third = self.part_shape
        return (first, second, third) if self.input.layout == "NHWC" else (second, third, first)

    @property
    def horizon(self) -> TimeToFailureMeaning:
        """What `rul` counts."""
        return self.time_to_failure or TimeToFailureMeaning()

    @model_validator(mode="after")
    def _agrees(self) -> "Description":
        problems = list(itertools.chain(_labels(self), _roles(self), _tensor(self), _levels(self)))
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Metadata(Description):
    """metadata.json: the description, and what packaging adds."""

    created_at: str
    """RFC 3339, UTC."""
    input_shape: tuple[int, ...]
    """`input.shape` with -1 for free dimensions."""
    files: dict[str, File]
    golden: Golden


def _labels(one: Description) -> list[str]:
    problems = []
    if len(set(one.output_classes)) != len(one.output_classes):
        problems.append("output_classes: a class is named twice")
    named = {
        "ok_classes": one.good,
        "thresholds.class": one.thresholds.class_,
        "thresholds.region": one.thresholds.region,
        "failure_modes": one.failure_modes,
    }
    for key, labels in named.items():
        problems += [
            f"{key}: {label!r} is no class{near(label, one.output_classes)}"
            for label in labels
            if label not in one.output_classes
        ]
    if one.model_type == "segmentation" and len(one.output_classes) - len(one.good) < 1:
        problems.append("output_classes: a segmentation model needs a defect class")
    if one.model_type != "classification" and one.good != one.output_classes[:1]:
        problems.append("ok_classes: must be the first of output_classes, or be left out")
    return problems


def _roles(one: Description) -> list[str]:
    must, may = ROLES[one.model_type]
    problems = [
        f"outputs: the role {role!r} is missing; give the ONNX output's name"
        for role in sorted(must - one.outputs.keys())
    ]
    problems += [
        f"outputs: there is no role {role!r} for {one.model_type}{near(role, must | may)}"
        for role in one.outputs
        if role not in must | may
    ]
    if one.model_type == "classification" and len(one.outputs) != 1:
        problems.append("outputs: give one role, logits or probabilities")
    return problems


def _tensor(one: Description) -> list[str]:
    shape, problems = one.input.shape, []
    if any(isinstance(size, str) for size in shape[1:]) or any(int(size) < 1 for size in shape[1:]):
        return ["input.shape: only the first dimension, the batch, may be free; the others are numbers >= 1"]
    values = 1
    for size in shape[1:]:
        values *= int(size)
    if values > MAX_INPUT_VALUES:
        problems.append(f"input.shape: more than {MAX_INPUT_VALUES} values a part")
    if one.takes_windows:
        if len(shape) != 3 or one.input.dtype != "float32":
            problems.append('input: a window is float32 of shape ["N", records, channels]')
        elif one.input.channels and len(one.input.channels) != shape[2]:
            problems.append(f"input.channels: {len(one.input.channels)} names for {shape[2]} channels")
        return problems + _guards(one)
    if len(shape) != 4 or one.input.layout not in {"NHWC", "NCHW"} or one.input.colour_order is None:
        return [
            *problems,
            "input: an image has four dimensions, layout NHWC or NCHW, colour_order GRAY, RGB or BGR",
        ]
    channels = one.image_size[2]
    if channels != (1 if one.input.colour_order == "GRAY" else 3):
        problems.append(f"input.shape: {channels} channels do not fit colour_order {one.input.colour_order}")
    norm = one.input.normalisation
    if norm and (
        one.input.dtype != "float32" or {len(norm.mean), len(norm.std)} - {1, channels} or 0.0 in norm.std
    ):
        problems.append(
            f"input.normalisation: needs dtype float32 and 1 or {channels} values in mean and std, std not 0"
        )
    return problems


def _guards(one: Description) -> list[str]:
    guards = one.guards or Guards()
    problems = []
    for guard in (guards.frozen, guards.regimes):
        for channel in guard.channels if guard else ():
            try:
                channel_index(one.input, channel)
            except ValueError as error:
                problems.append(f"guards: {error}")
    if guards.regimes:
        count = len(guards.regimes.channels)
        if any(len(row) != count for row in (*guards.regimes.points, guards.regimes.scale)):
            problems.append(f"guards.regimes: every point and the scale need {count} values, one per channel")
    return problems


def _levels(one: Description) -> list[str]:
    if one.thresholds.review > one.thresholds.ng:
        return ["thresholds: review must not be above ng"]
    return []


def channel_index(spec: Input, channel: int | str) -> int:
    """Where a channel stands in a record. Raises ValueError when there is none of that name or number."""
    if isinstance(channel, str):
        if channel not in spec.channels:
            raise ValueError(f"{channel!r} is no name of input.channels{near(channel, spec.channels)}")
        return spec.channels.index(channel)
    if not 0 <= channel < int(spec.shape[-1]):
        raise ValueError(f"channel {channel} is outside 0..{int(spec.shape[-1]) - 1}")
    return channel


def near(word: str, words: Sequence[str] | frozenset[str]) -> str:
    """The rest of a sentence about a word that is none of `words`."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return (
        f"; did you mean {near[0]!r}?"
        if near
        else f"; choose from {', '.join(sorted(words))}"
        if words
        else ""
    )
