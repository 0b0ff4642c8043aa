"""PNGs of numbers: every kind that tools write is read as numbers, others are refused by name."""

from __future__ import annotations

import struct
import zlib

import av
import cv2
import numpy as np
import pytest

from system.data.indexed_png import Header, checked_header, object_colours, read_numbers, write_numbers

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(numbers: Numbers, bits: int, colour_type: int = 3, more: bytes = b"") -> bytes:
    """Write a PNG by the specification, without any library: rows with filter 0, numbers packed to their bits."""
    height, width = numbers.shape
    places = np.unpackbits(numbers[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    packed = np.packbits(places, axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes([9, 9, 9] * 2**bits)) if colour_type == 3 else b""  # all colours alike
    body = chunk(b"IHDR", header) + palette + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def drawn(highest: int) -> Numbers:
    return np.random.default_rng(0).integers(0, highest + 1, (5, 13)).astype(np.uint8)


@pytest.mark.parametrize("colour_type", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_numbers_are_read_whatever_their_bits_and_their_palette(bits: int, colour_type: int) -> None:
    numbers = drawn(2**bits - 1)
    data = png(numbers, bits, colour_type, chunk(b"tEXt", b"Software\0x") + chunk(b"tRNS", bytes(2)))
    assert (read_numbers(data) == numbers).all()
    assert checked_header(data) == Header(5, 13, bits, colour_type)


def test_opencv_alone_would_give_the_colours() -> None:
    data = np.frombuffer(png(drawn(255), 8), np.uint8)
    colours = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert colours is not None
    assert set(np.unique(colours)) == {9}


def test_what_is_written_is_read_back_and_another_reader_sees_its_palette() -> None:
    import io

    numbers, colours = drawn(255), object_colours()
    data = write_numbers(numbers, colours)
    assert (read_numbers(data) == numbers).all()
    with av.open(io.BytesIO(data), "r") as file:
        frame = next(file.decode(video=0))
    assert frame.format.name == "pal8"
    assert (frame.to_ndarray(format="rgb24") == colours[numbers]).all()


def test_the_colours_are_those_of_pascal_voc() -> None:
    colours = object_colours()
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[8].tolist() == [64, 0, 0]
    assert colours[255].tolist() == [224, 224, 192]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"JFIF" + data, "no PNG"),
        (lambda data: data[:-20], "cut off"),
        (lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:], "checksum"),
        (lambda data: data[:33], "cut off"),
    ],
)
def test_a_spoilt_file_is_refused(spoil: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        checked_header(spoil(png(drawn(3), 8)))  # type: ignore[operator]


@pytest.mark.parametrize(("shape", "depth", "says"), [((4, 4, 3), np.uint8, "RGB"), ((4, 4), np.uint16, "16 bits")])
def test_colours_and_large_numbers_are_refused(shape: tuple[int, ...], depth: type, says: str) -> None:
    data = cv2.imencode(".png", np.zeros(shape, depth))[1].tobytes()
    with pytest.raises(ValueError, match=says):
        read_numbers(data)
