# SPDX-License-Identifier: Apache-2.0
"""An 8-bit grey PNG from bytes, so that capture needs no image library for its heat maps."""

import struct
import zlib


def grey_png(values: bytes, width: int, height: int) -> bytes:
    """The picture of `width * height` values, row by row. PNG specification (ISO/IEC 15948), sections 5 and 11."""
    if len(values) != width * height:
        raise ValueError(f"{len(values)} values for {width} x {height} cells")
    rows = b"".join(b"\0" + values[start : start + width] for start in range(0, len(values), width))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
