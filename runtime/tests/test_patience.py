# SPDX-License-Identifier: Apache-2.0
"""A start that waits for room. On volumes that are full indeed: services/forwarder/tests/test_full_volume.py."""

import signal

import pytest

from linewatch_runtime import patience
from linewatch_runtime.patience import when_there_is_room
from linewatch_runtime.records import SpoolDamaged, SpoolFull, VolumeFull


def test_start_waits_while_there_is_no_room_and_gives_the_signals_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "AGAIN_S", 0.01)
    before = signal.getsignal(signal.SIGTERM)
    troubles = [VolumeFull("the volume is full"), SpoolFull("", "the disk is full")]
    waiting = []

    def begin() -> str:
        if troubles:
            raise troubles.pop(0)
        waiting.append(signal.getsignal(signal.SIGTERM))
        return "begun"

    assert when_there_is_room(begin) == "begun"
    assert waiting != [before]
    assert signal.getsignal(signal.SIGTERM) is before


def test_start_that_no_room_helps_does_not_wait() -> None:
    def begin() -> None:
        raise SpoolDamaged("it can't be read")

    with pytest.raises(SpoolDamaged):
        when_there_is_room(begin)
