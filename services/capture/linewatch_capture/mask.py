# SPDX-License-Identifier: Apache-2.0
"""Areas of a camera's picture that nobody may see, as CAPTURE_MASK writes them. Pure; `masking.py` blackens them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_AREAS = 16

_FRACTION = r"(0(?:\.\d{1,4})?|1(?:\.0{1,4})?)"
_AREA = re.compile(",".join([_FRACTION] * 4), re.ASCII)
_EXAMPLE = (
    'write each area as left,top,width,height in fractions of the picture, such as "0,0,0.25,1/0.8,0,0.2,0.1"'
)


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in fractions of the picture: 0..1 from its left and from its top."""

    left: Fraction
    top: Fraction
    right: Fraction
    bottom: Fraction

    def pixels(self, width: int, height: int) -> tuple[slice, slice]:
        """Rows and columns of a picture of that size. Rounded outwards: no pixel that it touches is seen."""
        return (
            slice(int(self.top * height), -int(-self.bottom * height // 1)),
            slice(int(self.left * width), -int(-self.right * width // 1)),
        )


Mask = tuple[Area, ...]


def mask_of(text: str) -> Mask:
    """The areas of "left,top,width,height/…"; none for an empty text.

    Raises:
        ValueError: what is wrong and how to write it.
    """
    if not text:
        return ()
    written = text.split("/")
    if len(written) > MAX_AREAS:
        raise ValueError(f"{len(written)} areas, at most {MAX_AREAS}; join some into a larger one")
    mask = tuple(_area(number, area) for number, area in enumerate(written, 1))
    if not any(_is_open(mask, *point) for point in _corners(mask)):
        raise ValueError("the areas cover the whole picture; leave the part to be seen")
    return mask


def _area(number: int, text: str) -> Area:
    found = _AREA.fullmatch(text)
    if found is None:
        raise ValueError(f"area {number} is {text[:40]!r}; {_EXAMPLE}, each with at most four digits")
    left, top, width, height = (Fraction(value) for value in found.groups())
    if not width or not height:
        raise ValueError(f"area {number} has no {'width' if not width else 'height'}; {_EXAMPLE}")
    if left + width > 1 or top + height > 1:
        side = "right" if left + width > 1 else "bottom"
        raise ValueError(f"area {number} ends beyond the {side} of the picture; {_EXAMPLE}")
    return Area(left, top, left + width, top + height)


def _corners(mask: Mask) -> Iterator[tuple[Fraction, Fraction]]:
    """A point of each cell of the grid that the areas' sides make: what is open at all is open at one of these."""
    lefts = {Fraction(0), *(area.right for area in mask)} - {Fraction(1)}
    tops = {Fraction(0), *(area.bottom for area in mask)} - {Fraction(1)}
    return ((left, top) for left in lefts for top in tops)


def _is_open(mask: Mask, left: Fraction, top: Fraction) -> bool:
    return not any(area.left <= left < area.right and area.top <= top < area.bottom for area in mask)
