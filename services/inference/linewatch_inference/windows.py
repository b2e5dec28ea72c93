# SPDX-License-Identifier: Apache-2.0
"""Guards in front of a sensor model: one NaN makes every output NaN, a stuck sensor moves a lifetime by 8 to 24 cycles.

Both figures were measured on the turbofan model; neither raises an error in the graph itself.
"""

import numpy as np
from numpy.typing import NDArray

from linewatch_inference.errors import FrozenChannel, NotFinite, UnknownRegime, WrongShape
from linewatch_inference.metadata import Description, FrozenGuard, Input, RegimesGuard, channel_index
from linewatch_inference.verdict import Floats, Window


def checked_window(description: Description, window: Window) -> Floats:
    """The records (rows, channels) as float32, when the package's guards let them pass.

    Raises:
        WrongShape, NotFinite, FrozenChannel, UnknownRegime: by the first guard that refuses.
    """
    values = np.ascontiguousarray(window.values, dtype=np.float32)
    if values.shape != description.part_shape:
        wanted = "x".join(str(size) for size in description.part_shape)
        told = "x".join(str(size) for size in values.shape)
        raise WrongShape(
            f"sensor_window: {told} values, {description.model_name} needs {wanted} (rows x channels)"
        )
    if not 0 <= window.padded_rows < len(values):
        raise WrongShape(f"sensor_window.padded_rows: {window.padded_rows} is outside 0..{len(values) - 1}")
    if not np.isfinite(values).all():
        row, channel = np.argwhere(~np.isfinite(values))[0]
        raise NotFinite(
            f"sensor_window.values: {_name(description.input, int(channel))} in row {row} is no finite number;"
            " mend the sensor, don't fill in a value"
        )
    guards = description.guards
    if guards and guards.frozen:
        _refuse_frozen(description.input, guards.frozen, values[window.padded_rows :])
    if guards and guards.regimes:
        _refuse_unknown_regime(description.input, guards.regimes, values[window.padded_rows :])
    return values


def _refuse_frozen(spec: Input, guard: FrozenGuard, records: NDArray[np.float32]) -> None:
    if len(records) < guard.min_equal:
        return
    recent = records[-guard.min_equal :]
    for channel in guard.channels:
        index = channel_index(spec, channel)
        if np.ptp(recent[:, index]) == 0.0:
            raise FrozenChannel(
                f"sensor_window.values: {_name(spec, index)} stands at {recent[-1, index]:g} for the last"
                f" {guard.min_equal} records; check the sensor and its wiring"
            )


def _refuse_unknown_regime(spec: Input, guard: RegimesGuard, records: NDArray[np.float32]) -> None:
    columns = [channel_index(spec, channel) for channel in guard.channels]
    scale = np.asarray(guard.scale)
    points = np.asarray(guard.points) / scale
    gaps = np.linalg.norm(records[:, np.newaxis, columns] / scale - points, axis=2).min(axis=1)
    worst = int(gaps.argmax())
    if gaps[worst] > guard.max_distance:
        told = ", ".join(f"{_name(spec, column)} {records[worst, column]:g}" for column in columns)
        raise UnknownRegime(
            f"sensor_window.values: {told} is no operating point that the model knows; check the settings' channels"
        )


def _name(spec: Input, channel: int) -> str:
    return spec.channels[channel] if spec.channels else f"channel {channel}"
