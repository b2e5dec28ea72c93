# SPDX-License-Identifier: Apache-2.0
"""The mask: how it is written, what it covers, and that no picture gets past it."""

import asyncio
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image, PngImagePlugin

from linewatch.v1 import inspector_pb2
from linewatch_capture.folder import read_part
from linewatch_capture.mask import MAX_AREAS, mask_of
from linewatch_capture.masking import Masking
from linewatch_capture.parts import MAX_IMAGE_BYTES, Unmaskable

MASK = "0,0,0.25,1/0.8,0.5,0.2,0.1"
WIDTH, HEIGHT = 83, 61
COVERED = [(slice(0, 61), slice(0, 21)), (slice(30, 37), slice(66, 83))]
"""MASK of such a picture by hand: 20.75 columns; 66.4 to 83, 30.5 to 36.6 rows."""


def pixels(*channels, seed=1):
    """Nothing in it is black, so that black means masked."""
    return np.random.default_rng(seed).integers(60, 256, (HEIGHT, WIDTH, *channels), dtype=np.uint8)


def jpeg(values):
    shaped = values if values.ndim == 3 else values[:, :, np.newaxis]
    return simplejpeg.encode_jpeg(np.ascontiguousarray(shaped), 90, "GRAY" if values.ndim == 2 else "RGB")


def png(picture, **options):
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()


def seen(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


def is_covered(values):
    return all(not values[rows, columns].any() for rows, columns in COVERED)


def open_pixels(values):
    """Those that the mask leaves."""
    is_open = np.ones(values.shape[:2], bool)
    for rows, columns in COVERED:
        is_open[rows, columns] = False
    return values[is_open]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,0,1", "area 1 is '0,0,1'; write each area as left,top,width,height"),
        ("0,0,0.5,0.5/", "area 2 is ''"),
        ("0, 0,0.5,0.5", "area 1"),
        ("0,0,0.5,0.5;0.8,0,0.2,0.1", "0.8,0,0.2,0.1'; write each area as"),
        ("0,0,50%,0.5", "area 1"),
        ("-0.1,0,0.5,0.5", "area 1"),
        ("0,0,1e-1,0.5", "area 1"),
        ("0,0,nan,0.5", "area 1"),
        ("0,0,0.12345,0.5", "at most four digits"),
        ("0,0,\u0661,0.5", "area 1"),
        ("10,10,200,100", "fractions of the picture"),
        ("0,0,0.5,0.5/0.2,0.2,0,0.5", "area 2 has no width"),
        ("0.2,0.2,0.1,0.000", "area 1 has no height"),
        ("0.6,0,0.5,0.5", "area 1 ends beyond the right"),
        ("0,0.9,0.5,0.1001", "area 1 ends beyond the bottom"),
        ("0,0,1,1", "cover the whole picture"),
        ("0,0,0.6,1/0.5,0,0.5,0.5/0.6,0.5,0.4,0.5", "cover the whole picture"),
        ("/".join(["0,0,0.1,0.1"] * (MAX_AREAS + 1)), "17 areas, at most 16"),
    ],
)
def test_a_mask_that_is_not_clear_is_refused_with_the_remedy(text, told):
    with pytest.raises(ValueError, match="area") as refused:
        mask_of(text)

    assert told in str(refused.value)


def test_areas_that_leave_any_of_the_picture_are_a_mask():
    assert mask_of("") == ()
    assert len(mask_of("/".join(["0,0,0.1,0.1"] * MAX_AREAS))) == MAX_AREAS
    # Two floating-point numbers of this kind may add up to a little over 1; fractions do not.
    assert all(len(mask_of(f"0.{n:04},0,0.{10_000 - n:04},0.5")) == 1 for n in range(1, 10_000, 7))
    assert len(mask_of("0,0,0.6,1/0.5,0,0.5,0.5/0.6,0.5,0.3999,0.5")) == 3


@given(
    some.integers(0, 9_999), some.integers(1, 10_000), some.integers(1, 5_000)
)  # fmt: skip
def test_every_pixel_that_an_area_touches_is_covered(left, wide, size):
    wide = min(wide, 10_000 - left)
    if (left, wide) == (0, 10_000):
        return
    (area,) = mask_of(f"{left / 10_000:.4f},{left / 10_000:.4f},{wide / 10_000:.4f},{wide / 10_000:.4f}")

    for covered in area.pixels(size, size):
        assert 0 <= covered.start < covered.stop <= size
        # In whole numbers: pixel p spans p to p + 1 of `size`.
        assert covered.start * 10_000 <= left * size < (covered.start + 1) * 10_000
        assert (covered.stop - 1) * 10_000 < (left + wide) * size <= covered.stop * 10_000


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("encode", [jpeg, png])
def test_areas_are_black_and_the_rest_is_what_the_file_decodes_to(encode, channels):
    file = encode(pixels(*channels))
    plain = (
        simplejpeg.decode_jpeg(file, "RGB" if channels else "GRAY").squeeze()
        if encode is jpeg
        else seen(file)
    )

    masked = seen(Masking(mask_of(MASK))(file))

    assert masked.shape == plain.shape
    assert is_covered(masked)
    assert not is_covered(plain)
    assert (open_pixels(masked) == open_pixels(plain)).all()


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", ()), ("P", ()), ("LA", ()), ("RGBA", (3,)), ("I;16", ()), ("RGB;16", (3,))]
)
def test_every_kind_of_png_comes_out_as_eight_bits_of_the_same_colours(mode, shape):
    values = pixels(3) if shape else pixels()
    if mode == "1":
        values = np.where(values > 150, 255, 0).astype(np.uint8)
        values[:, 30] = 255
    picture = Image.fromarray(values)
    if mode == "I;16":
        file = png(Image.fromarray(values.astype(np.uint16) << 8 | 0x7F))
    elif mode == "RGB;16":
        file = png_of_sixteen_bits(values)
    else:
        file = png(picture.convert(mode) if mode != "P" else palette(values))

    masked = seen(Masking(mask_of(MASK))(file))

    grey = masked if masked.ndim == values.ndim else masked[:, :, 0]
    assert is_covered(masked)
    assert masked.dtype == np.uint8
    assert (open_pixels(grey) == open_pixels(values)).all()


def palette(values):
    picture = Image.fromarray(values, "L").copy()
    picture.putpalette([level for level in range(256) for _ in range(3)])
    assert picture.mode == "P"
    return picture


def png_of_sixteen_bits(values):
    """What no writer of ours makes: RGB of 16 bits."""
    rows = b"".join(b"\0" + (row.astype(">u2") << 8 | 0x7F).astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def test_nothing_else_of_the_file_gets_past_not_a_thumbnail_nor_a_word():
    thumbnail = b"a small picture of everybody on the walkway"
    exif = b"Exif\0\0" + thumbnail
    plain = jpeg(pixels(3))
    with_thumbnail = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    behind_its_end = plain + thumbnail
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", thumbnail.decode())
    masking = Masking(mask_of(MASK))

    for file in (with_thumbnail, behind_its_end, png(pixels(3), pnginfo=words, exif=exif)):
        assert thumbnail in file
        masked = masking(file)
        assert thumbnail not in masked
        assert is_covered(seen(masked))


def mid_zeroed(data):
    third = len(data) // 3
    return data[:third] + bytes(third) + data[2 * third :]


def flipped(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (mid_zeroed(jpeg(pixels(3))), "unreadable_image"),
        (jpeg(pixels())[:-200], "unreadable_image"),
        (jpeg(pixels())[:30], "unreadable_image"),
        (flipped(png(pixels())), "unreadable_image"),
        (png(pixels())[:-200], "unreadable_image"),
        (png(pixels())[:-12], "unreadable_image"),
        (png(pixels())[:20], "unreadable_image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "unreadable_image"),
        (b"\xff\xd8\xff" + bytes(60), "unreadable_image"),
        (b"GIF89a", "unreadable_image"),
        (b"", "unreadable_image"),
        (png(Image.new("L", (4097, 4097))), "image_too_large"),
        (jpeg(np.zeros((4097, 4097), np.uint8)), "image_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[1:4]!r}, {len(value)} bytes",
)
def test_what_is_no_whole_picture_is_refused_and_not_mended(file, reason, tmp_path):
    masking = Masking(mask_of(MASK))
    with pytest.raises(Unmaskable):
        masking(file)

    (tmp_path / "part.jpg").write_bytes(file)
    part = read_part(tmp_path / "part.jpg", 1, masking)

    assert part.content is None
    assert part.refused is not None
    assert (part.refused.reason, ";" in part.refused.message) == (reason, True)


def test_a_masked_picture_keeps_to_the_limit_of_bytes():
    noise = np.random.default_rng(5).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    file = simplejpeg.encode_jpeg(noise, 60, colorsubsampling="444")
    assert len(file) < MAX_IMAGE_BYTES < noise.size

    with pytest.raises(Unmaskable, match="bytes when masked") as refused:
        Masking(mask_of(MASK))(file)

    assert refused.value.refused.reason == "image_too_large"


def test_the_largest_picture_is_masked_within_the_components_memory(tmp_path):
    """256 MB, recipes/Capture.json, of which the rest of capture is imported here, too."""
    y, x = np.mgrid[:4096, :4096]
    large = np.stack([x // 16, y // 16, (x + y) // 32], axis=-1).astype(np.uint8)
    (tmp_path / "large.jpg").write_bytes(simplejpeg.encode_jpeg(large, 90))
    program = (
        "import re, sys, linewatch_capture.__main__\n"
        "from linewatch_capture.mask import mask_of\n"
        "from linewatch_capture.masking import Masking\n"
        "masked = Masking(mask_of(sys.argv[2]))(open(sys.argv[1], 'rb').read())\n"
        "print(len(masked), *re.findall(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "large.jpg", MASK],
        check=True,
        capture_output=True,
        text=True,
    )

    size, peak_kib = map(int, done.stdout.split())
    assert size < MAX_IMAGE_BYTES
    assert peak_kib < 240 * 1024


@pytest.mark.parametrize("source", ["folder", "watch"])
def test_nobody_but_the_camera_ever_has_an_unmasked_picture(source, flow, tmp_path, inspector, a_verdict):
    """Request, evidence, the console's latest, spool: whatever capture wrote or sent, for every kind of verdict."""
    path, evidence = tmp_path / "camera", tmp_path / "evidence"
    path.mkdir()
    files = {f"{n}.jpg": jpeg(pixels(3, seed=n)) for n in range(3)} | {"3.png": png(pixels(seed=3))}
    files |= {"4.jpg": mid_zeroed(jpeg(pixels(3, seed=4)))}
    results = iter(["NG", "OK", "REVIEW", "NG"])

    def answer(_request, _context):
        heat = inspector_pb2.Heatmap(values=bytes([255] * 4), width=2, height=2)
        return inspector_pb2.InspectResponse(verdict=a_verdict(next(results), "crack", 0.9), heatmap=heat)

    inspector.script = answer
    station = flow(source=source, path=path, mask=MASK, evidence_dir=evidence, evidence_ok_share=1.0)

    async def camera(stop):
        await station.until(lambda: station.progress.state == "running")
        for number, (name, content) in enumerate(sorted(files.items()), 1):
            (path / f".{name}").write_bytes(content)
            (path / f".{name}").rename(path / name)
            await station.until(lambda wanted=number: len(station.events()) >= wanted)
        stop.set()

    if source == "watch":
        asyncio.run(station.run(camera))
    else:
        for name, content in files.items():
            (path / name).write_bytes(content)
        asyncio.run(station.run())

    events = station.events()
    assert (len(events), station.counts()["judged"], station.counts()["not_inspected"]) == (5, 4, 1)
    (refused,) = (event["data"] for event in events if "not_inspected" in event["data"])
    assert refused["not_inspected"]["reason"] == "unreadable_image"
    assert "evidence" not in refused
    assert len(inspector.asked) == 4
    assert all(is_covered(seen(request.encoded_image.data)) for request in inspector.asked)
    written = {
        file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and path not in file.parents
    }
    pictures = [
        content for file, content in written.items()
        if file.suffix in (".jpg", ".png") and "heatmap" not in file.name and not file.match("latest/*/*.png")
    ]  # fmt: skip
    assert len(pictures) == 5  # four parts, and the latest
    assert all(is_covered(seen(content)) for content in pictures)
    # Nor is what the camera wrote a piece of any other file, or any picture, of which there is no more than this.
    assert not any(content[100:400] in there for content in files.values() for there in written.values())
    # The page says so: what the camera wrote is the camera's, as it was.
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files
    named = [one for event in events for one in event["data"].get("evidence", []) if one["kind"] == "frame"]
    assert [one["media_type"] for one in named] == ["image/png"] * 4


@pytest.mark.parametrize("mask", ["", MASK])
def test_only_a_station_with_a_mask_loads_a_decoder(mask, capture, folder, wait, spool_file):
    started = capture(path=folder(1), mask=mask)

    wait(spool_file.events)

    mapped = Path(f"/proc/{started.process.pid}/maps").read_text()
    assert "/grpc/" in mapped
    for library in ("numpy", "PIL", "simplejpeg"):
        assert (f"/{library}/" in mapped) == bool(mask)


def test_a_mask_for_records_is_a_wrong_setting(capture, tmp_path):
    (tmp_path / "records.csv").write_text("engine,cycle,a\n1,1,0.5\n")

    started = capture(source="records", path=tmp_path / "records.csv", mask=MASK)

    assert started.process.wait(60) == 2
    assert "CAPTURE_MASK: records have no picture" in started.said()


def test_a_wrong_mask_ends_the_process_with_the_variables_name(capture, folder):
    started = capture(path=folder(1), mask="0,0,50,50")

    assert started.process.wait(60) == 2
    assert "CAPTURE_MASK" in started.said()
    assert "fractions of the picture" in started.said()
