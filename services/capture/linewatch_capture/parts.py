# SPDX-License-Identifier: Apache-2.0
"""The words of the flow: a part, and what came of it."""

import time
from dataclasses import dataclass, field

from linewatch.v1 import verdict_pb2

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"

MAX_IMAGE_BYTES = 16 * 1024 * 1024
"""Inspector's limit for an encoded image (inspector.proto, EncodedImage)."""

MAX_PIXELS = 16_777_216
"""Inference's limit (linewatch_inference/preprocess.py): what it would refuse need not be decoded here."""

REASONS = frozenset({
    "unreadable_image", "image_too_large", "wrong_shape", "not_finite", "frozen_channel", "unknown_regime",
    "cycle_order", "busy", "deadline", "inference_unavailable", "model_not_found", "internal",
})  # fmt: skip
"""What `NotInspected.reason` may say (event.proto)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An image as its file holds it: JPEG or PNG, or something that claims to be. Where there is a mask, the masked PNG."""

    encoded: bytes

    @property
    def is_png(self) -> bool:
        """By its first bytes, not by its name."""
        return self.encoded.startswith(PNG_START)


@dataclass(frozen=True, slots=True)
class Window:
    """The last records of one machine, oldest first.

    Attributes:
        records: rows of one value per channel, in the machine's units.
        channels: the columns' names.
        cycles: the operating cycle of each row.
        padded_rows: how many leading rows repeat the first record.
    """

    records: tuple[tuple[float, ...], ...]
    channels: tuple[str, ...]
    cycles: tuple[int, ...]
    padded_rows: int


@dataclass(frozen=True, slots=True)
class NotInspected:
    """Why a part has no verdict. `reason` is one of REASONS; `message` names the remedy."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Heatmap:
    """0..255 for each cell, row by row, over the whole frame."""

    values: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the heat map where there is one. The verdict goes into the event as it came."""

    verdict: verdict_pb2.Verdict
    heatmap: Heatmap | None = None

    @property
    def is_good(self) -> bool:
        """OK, neither NG nor REVIEW."""
        return bool(self.verdict.result == verdict_pb2.Verdict.OK)


Outcome = Judged | NotInspected


@dataclass(frozen=True, slots=True)
class Part:
    """One frame or window, taken.

    Attributes:
        part_id: its own name, for people.
        content: None when the source could not give it; then `refused` says why.
        position: where the source goes on after this part; kept on disk with its event.
        mark: what the source has to know again after a restart, kept on disk with the part's event; empty: nothing.
        refused: set when the part needs no model to be seen as unfit.
        taken_at: wall clock, seconds since 1970.
        taken_monotonic: time.monotonic() at the same moment.
    """

    part_id: str
    content: Frame | Window | None
    position: int
    refused: NotInspected | None = None
    cycle_period_s: float | None = None
    mark: str = ""
    taken_at: float = field(default_factory=time.time)
    taken_monotonic: float = field(default_factory=time.monotonic)


class Unmaskable(Exception):
    """No masked picture can be made of it; `refused` says why."""

    def __init__(self, reason: str, message: str) -> None:
        """As in NotInspected."""
        super().__init__(message)
        self.refused = NotInspected(reason, message)


class Stopped(Exception):
    """A stop was asked before this part was recorded. Nothing is counted; the part comes again after a restart."""
