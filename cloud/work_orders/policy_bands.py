# SPDX-License-Identifier: Apache-2.0
"""Reads a policy's bands and the weights that must reach them, as policy_reading.py reads the rest. Pure."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from work_orders.policy import Band
from work_orders.policy_place import Place, all_sound

At = Callable[[str], Place]
RESULTS = ("NG", "REVIEW", "OK")
CRITICALITIES = ("A", "B", "C")
# Strongest first. The flow knows these two: one creates, one asks.
BANDS = ("automatic", "approval")


def bands(place: Place) -> tuple[Band, ...]:
    """Both bands; none where they can't be held against anything."""
    names: list[Place] = []
    read: list[Band | None] = []
    for entry in place.items(len(BANDS)):
        at = entry.object(("name", "on", "on_inclusive", "off"))
        names.append(at("name"))
        read.append(_band(at("name").one_of(BANDS), entry, at, is_inclusive=True))
    if not all_sound(place, names):
        return ()
    if tuple(name.value for name in names) != BANDS:
        place.tell(f"must be {' and '.join(BANDS)}, in this order")
        return ()
    return _graded(read, place)


def _band(name: str, place: Place, at: At, *, is_inclusive: bool) -> Band | None:
    """The band at a place; `is_inclusive` where it does not say so itself. None where its numbers are none."""
    numbers = [at("on"), at("off")]
    on, off = (one.number(0, 1) for one in numbers)
    if place.has("on_inclusive"):
        numbers.append(at("on_inclusive"))
        is_inclusive = at("on_inclusive").flag()
    if not all_sound(place, numbers):
        return None
    band = Band(name, on, is_inclusive, off)
    if not band.off < band.on:
        place.tell(f"off ({band.off}) must be under on ({band.on}): otherwise the band flickers")
    if not band.off > 0:
        place.tell("off must be over 0: no risk is under 0, and a rejected band would be silent for ever")
    if not band.holds(1.0):
        place.tell("on must be under 1, or on_inclusive true: no risk is over 1, and nothing would cross")
    return band


def _graded(bands: Sequence[Band | None], place: Place) -> tuple[Band, ...]:
    """The bands, held against each other; none where one of them is not known."""
    known = tuple(band for band in bands if band is not None)
    if len(known) != len(BANDS):
        return ()
    for stronger, weaker in pairwise(known):
        if not (stronger.on > weaker.on and stronger.off >= weaker.off):
            place.tell(
                f"{stronger.name} (on {stronger.on}, off {stronger.off}) must lie above {weaker.name} "
                f"(on {weaker.on}, off {weaker.off})"
            )
    return known


def by_criticality(place: Place, default: tuple[Band, ...]) -> dict[str, tuple[Band, ...]]:
    """The bands of each criticality that has its own; what it does not say is the `default`'s."""
    made = {}
    for criticality, entry in place.entries(len(CRITICALITIES)):
        if criticality in CRITICALITIES:
            made[criticality] = _own_bands(entry, default)
        else:
            entry.tell(f"is no criticality; known: {', '.join(CRITICALITIES)}")
    return made


def _own_bands(place: Place, default: tuple[Band, ...]) -> tuple[Band, ...]:
    at = place.object((), BANDS)
    graded: dict[str, Band | None] = {band.name: band for band in default}
    own = [name for name in BANDS if place.has(name)]
    for name in own:
        inherited = graded.get(name)
        limits = at(name).object(("on", "off"), ("on_inclusive",))
        graded[name] = _band(name, at(name), limits, is_inclusive=inherited is None or inherited.on_inclusive)
    # Those of all criticalities were held against each other already.
    return _graded([graded.get(name) for name in BANDS], place) if own else default


def weights(place: Place, every: Iterable[tuple[Band, ...]]) -> dict[str, float]:
    """By result; `every`: the bands that bad parts alone must reach."""
    at = place.object(RESULTS)
    read = {result: at(result).number(0, 1) for result in RESULTS}
    if all_sound(place, [at(result) for result in RESULTS]) and not (
        read["OK"] <= read["REVIEW"] <= read["NG"]
    ):
        told = ", ".join(f"{result} {read[result]}" for result in RESULTS)
        place.tell(f"must not rise from NG over REVIEW to OK, got {told}")
    # The mean where every part of the window is NG.
    worst = read["NG"]
    missed = [of_one[-1].on for of_one in every if of_one and not of_one[-1].holds(worst)]
    if missed and at("NG").is_sound:
        place.tell(
            f"NG ({worst}) must reach the weakest band (on {max(missed)}): bad parts alone would never raise an order"
        )
    return read
