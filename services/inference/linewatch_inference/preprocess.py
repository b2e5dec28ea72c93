# SPDX-License-Identifier: Apache-2.0
"""A part on its way into the graph: decoding, checks, resize. Pure; what can't be judged is refused by name.

An image bomb is refused by its header, before a decoder sees it; the decoder's own limit is the second fence.
"""

import os
import struct
from dataclasses import dataclass

MAX_PIXELS = 16_777_216
MAX_ENCODED_BYTES = 16 * 1024 * 1024
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # OpenCV reads it once, when it is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from linewatch_inference.errors import ImageTooLarge, UnreadableImage, WrongShape  # noqa: E402
from linewatch_inference.metadata import Description, Input, Quality  # noqa: E402
from linewatch_inference.verdict import Encoded, Part, Pixels, Raw, Window  # noqa: E402
from linewatch_inference.windows import checked_window  # noqa: E402

cv2.setNumThreads(1)  # workers are the parallelism; OpenCV's own pool would multiply with them

_RESIZE = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG SOF0..15 without DHT, JPG, DAC
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The graph's input (1, …) and what is known of its source: (height, width), (0, 0) for a window."""

    tensor: NDArray[np.generic]
    source_size: tuple[int, int]
    quality_flags: tuple[str, ...] = ()


def prepare(description: Description, part: Part) -> Prepared:
    """The part as the package's input says.

    Raises:
        PartRefused: it can't be judged.
    """
    if isinstance(part, Window):
        if not description.takes_windows:
            raise WrongShape(f"sensor_window: {description.model_name} judges images; send an image")
        return Prepared(checked_window(description, part)[np.newaxis], (0, 0))
    if description.takes_windows:
        raise WrongShape(f"image: {description.model_name} judges sensor windows; send a sensor_window")
    grey_wanted = description.input.colour_order == "GRAY"
    pixels = (
        decode(part.data, grey=grey_wanted)
        if isinstance(part, Encoded)
        else _as_wanted(part, grey=grey_wanted)
    )
    height, width = pixels.shape[:2]
    flags = quality_flags(description, pixels)
    return Prepared(image_tensor(description, pixels), (height, width), flags)


def decode(data: bytes, *, grey: bool) -> Pixels:
    """Pixels (h, w) or (h, w, 3) BGR, as stored: an EXIF rotation is not applied, regions are in the frame as sent.

    Raises:
        UnreadableImage: not a JPEG or PNG, cut short, or a JPEG that its decoder has to mend.
        ImageTooLarge: more than MAX_ENCODED_BYTES or MAX_PIXELS.
    """
    if len(data) > MAX_ENCODED_BYTES:
        raise ImageTooLarge(
            f"encoded_image: {len(data)} bytes, at most {MAX_ENCODED_BYTES}; send a smaller image"
        )
    width, height = _size_in_header(data)
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"encoded_image: {width}x{height} pixels, at most {MAX_PIXELS}; send a smaller image"
        )
    if data.startswith(_JPEG):
        return _decode_jpeg(data, grey=grey)
    mode = (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error as error:
        raise UnreadableImage(
            f"encoded_image: can't be decoded ({error.err or 'damaged'}); send it again"
        ) from error
    if pixels is None or pixels.size == 0:
        raise UnreadableImage("encoded_image: can't be decoded; check that the file is a whole JPEG or PNG")
    return np.asarray(pixels, dtype=np.uint8)


def _decode_jpeg(data: bytes, *, grey: bool) -> Pixels:
    """By libjpeg-turbo, as OpenCV does and with the same pixels; OpenCV fills what is damaged with grey and says nothing."""
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY" if grey else "BGR", strict=True)
    except ValueError as error:
        raise UnreadableImage(
            f"encoded_image: the JPEG is damaged or no grey or colour one ({error}); send it again"
        ) from error
    return np.asarray(pixels[:, :, 0] if grey else pixels, dtype=np.uint8)


def _size_in_header(data: bytes) -> tuple[int, int]:
    """Width and height by the file's header. A decoder fills what is missing with grey, so the end is checked too."""
    try:
        if data.startswith(_PNG):
            if b"IEND" not in data[-64:]:
                raise UnreadableImage("encoded_image: the PNG is cut short; send the whole file")
            width, height = struct.unpack(">II", data[16:24])
            return width, height
        if data.startswith(_JPEG):
            if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
                raise UnreadableImage("encoded_image: the JPEG is cut short; send the whole file")
            return _jpeg_size(data)
    except (struct.error, IndexError) as error:
        raise UnreadableImage("encoded_image: the header is damaged; send it again") from error
    raise UnreadableImage("encoded_image: neither a JPEG nor a PNG; convert it")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise UnreadableImage("encoded_image: the JPEG's header is damaged; send it again")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length


def _as_wanted(part: Raw, *, grey: bool) -> Pixels:
    pixels = part.pixels
    if pixels.ndim == 2 and not grey:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if pixels.ndim == 3 and grey:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    return pixels


def image_tensor(description: Description, pixels: Pixels) -> NDArray[np.generic]:
    """(1, H, W, C) or (1, C, H, W) of the package's size, type and colour order."""
    spec = description.input
    height, width, _ = description.image_size
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=_RESIZE[spec.resize]), np.uint8)
    if spec.colour_order == "RGB":
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    planes = pixels.reshape(height, width, -1)
    values: NDArray[np.generic] = planes if spec.dtype == "uint8" else _normalised(spec, planes)
    if spec.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values)[np.newaxis]


def _normalised(spec: Input, planes: Pixels) -> NDArray[np.float32]:
    values = planes.astype(np.float32)
    if spec.normalisation:
        norm = spec.normalisation
        values *= np.float32(norm.scale)
        values -= np.asarray(norm.mean, np.float32)
        values /= np.asarray(norm.std, np.float32)
    return values


def quality_flags(description: Description, pixels: Pixels) -> tuple[str, ...]:
    """What is wrong with the picture though it can be judged: too_dark, too_bright, blurred, wrong_size."""
    limits = description.quality
    if limits is None:
        return ()
    height, width = pixels.shape[:2]
    flags = []
    grey = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    mean = float(cv2.mean(grey)[0])
    if limits.min_mean is not None and mean < limits.min_mean:
        flags.append("too_dark")
    if limits.max_mean is not None and mean > limits.max_mean:
        flags.append("too_bright")
    if limits.min_laplacian_var is not None and _laplacian_variance(grey) < limits.min_laplacian_var:
        flags.append("blurred")
    if _too_small(limits, width, height):
        flags.append("wrong_size")
    return tuple(flags)


def _laplacian_variance(grey: Pixels) -> float:
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


def _too_small(limits: Quality, width: int, height: int) -> bool:
    return width < (limits.min_width or 0) or height < (limits.min_height or 0)
