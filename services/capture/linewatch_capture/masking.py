# SPDX-License-Identifier: Apache-2.0
"""Blackens a mask's areas in an encoded picture. Imported only where there is a mask: decoders cost memory.

Guarantee: what comes out is made from the pixels alone, and those of the areas are black before it is made. So it holds
nothing else of the file either: no thumbnail, no second picture, no text. What can't be decoded whole is refused, never
passed on: a decoder that mends a damaged picture would hide from inference that it is damaged (docs/decisions/0011).
"""

import io
import warnings
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from linewatch_capture.mask import Mask
from linewatch_capture.parts import JPEG_START, MAX_IMAGE_BYTES, MAX_PIXELS, PNG_START, Unmaskable

_GREY_MODES = frozenset({"1", "L", "LA"})


class Masking:
    """Makes masked pictures of pictures."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask

    def __call__(self, encoded: bytes) -> bytes:
        """The picture as PNG, 8 bits, grey or colour as it came: outside the areas every pixel is what the file decodes to.

        Raises:
            Unmaskable: it is no whole JPEG or PNG, or too large.
        """
        try:
            pixels = _decoded(encoded)
        except Unmaskable:
            raise
        except Exception as error:
            # Decoders raise whatever comes to their mind over a damaged file, and none of it may end the process.
            message = (
                f"the picture can't be decoded, so it can't be masked ({error}); check that the file is whole"
            )
            raise Unmaskable("unreadable_image", message) from error
        for area in self._mask:
            pixels[area.pixels(pixels.shape[1], pixels.shape[0])] = 0
        masked = io.BytesIO()
        Image.fromarray(pixels).save(masked, "PNG", compress_level=1)
        if masked.tell() > MAX_IMAGE_BYTES:
            message = f"{masked.tell()} bytes when masked, the limit is {MAX_IMAGE_BYTES}; let the camera give fewer pixels"
            raise Unmaskable("image_too_large", message)
        return masked.getvalue()


def _decoded(encoded: bytes) -> NDArray[np.uint8]:
    """Pixels (h, w) or (h, w, 3), RGB, as stored: an EXIF rotation is not applied, here as little as by inference."""
    if encoded.startswith(JPEG_START):
        height, width, colour, _ = simplejpeg.decode_jpeg_header(encoded)
        _check_size(width, height)
        is_grey = colour == "Gray"
        pixels = simplejpeg.decode_jpeg(encoded, colorspace="GRAY" if is_grey else "RGB", strict=True)
        return np.array(pixels[:, :, 0] if is_grey else pixels, np.uint8)
    if encoded.startswith(PNG_START):
        return _decoded_png(encoded)
    raise Unmaskable("unreadable_image", "neither a JPEG nor a PNG, so it can't be masked; convert it")


def _decoded_png(encoded: bytes) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as picture:
            _check_size(*picture.size)
            picture.verify()  # every chunk's checksum: loading alone does not look at them
        picture = Image.open(io.BytesIO(encoded), formats=["PNG"])
    with picture:
        if picture.mode.startswith("I"):  # 16 bits of grey; inference takes the upper 8, too
            return np.array(np.asarray(picture) >> 8, np.uint8)
        grey_or_colour: Any = picture.convert("L" if picture.mode in _GREY_MODES else "RGB")
        return np.array(grey_or_colour, np.uint8)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        message = f"{width}x{height} pixels, at most {MAX_PIXELS}; let the camera give fewer"
        raise Unmaskable("image_too_large", message)
