"""PNGs whose pixels are numbers of objects: read as numbers, whatever their palette, and written with one.

OpenCV turns the numbers of a palette into colours, which need not be different ones. But a PNG with a palette differs
from a grey one in its header alone: the pixels are stored alike. So the header is rewritten and OpenCV reads them as
grey, and in the same way back. Masks are (H, W) uint8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour types of the PNG specification, section 11.2.2.
_GREY, _PALETTE = 0, 3
_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a PNG says of itself: size in px, bits of a number, and its colour type."""

    height: int
    width: int
    bits: int
    colour_type: int


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk, up to the last.

    Raises:
        ValueError: if the file is no PNG, is cut off, or a checksum does not match.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("no PNG")
    place, name = len(_SIGNATURE), b""
    while name != b"IEND":
        if len(data) < place + 12:
            raise ValueError("cut off")
        (length,) = struct.unpack_from(">I", data, place)
        if len(data) < place + 12 + length:
            raise ValueError("cut off")
        name, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if struct.unpack_from(">I", data, place + 8 + length)[0] != zlib.crc32(name + content):
            raise ValueError("damaged: a checksum does not match")
        yield name, content
        place += 12 + length


def _joined(chunks: Iterator[tuple[bytes, bytes]]) -> bytes:
    parts = [_SIGNATURE]
    for name, content in chunks:
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", zlib.crc32(name + content))]
    return b"".join(parts)


def checked_header(data: bytes) -> Header:
    """Return the header of a PNG of numbers, every checksum of the file compared; nothing is decoded.

    Raises:
        ValueError: if the file is no PNG, is damaged, or its pixels are colours or more than 8 bits; says which.
    """
    chunks = dict(reversed(list(_chunks(data))))
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise ValueError("damaged: there is no header")
    width, height, bits, colour_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    if colour_type not in (_GREY, _PALETTE) or bits > 8:
        kind = _KINDS.get(colour_type, f"colour type {colour_type}")
        raise ValueError(f"{kind} of {bits} bits, where numbers of objects are a palette's or grey, of 8 bits at most")
    return Header(height, width, bits, colour_type)


def read_numbers(data: bytes) -> Numbers:
    """Read a PNG of numbers.

    Raises:
        ValueError: as `checked_header` does, or if the pixels cannot be decoded.
    """
    header = checked_header(data)

    def as_grey() -> Iterator[tuple[bytes, bytes]]:
        for name, content in _chunks(data):
            if name == b"IHDR":
                yield name, content[:9] + bytes([_GREY]) + content[10:]
            elif name in (b"IDAT", b"IEND"):
                yield name, content

    found = cv2.imdecode(np.frombuffer(_joined(as_grey()), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.shape != (header.height, header.width):
        raise ValueError("damaged: its pixels cannot be decoded")
    # Grey of fewer bits is stretched to 0..255 when it is decoded.
    return np.asarray(found // (255 // (2**header.bits - 1)), np.uint8)


def write_numbers(numbers: Numbers, colours: NDArray[np.uint8]) -> bytes:
    """Write a PNG with a palette.

    Args:
        numbers: (H, W) uint8.
        colours: (256, 3) uint8 RGB, the colour that viewers show for each number.
    """
    done, data = cv2.imencode(".png", numbers)
    assert done

    def with_palette() -> Iterator[tuple[bytes, bytes]]:
        for name, content in _chunks(data.tobytes()):
            if name == b"IHDR":
                yield name, content[:9] + bytes([_PALETTE]) + content[10:]
                yield b"PLTE", colours.tobytes()
            elif name in (b"IDAT", b"IEND"):
                yield name, content

    return _joined(with_palette())


def object_colours() -> NDArray[np.uint8]:
    """Return the colours that PASCAL VOC and DAVIS give to numbers: (256, 3) uint8 RGB.

    The bits of a number are dealt out to red, green and blue in turn, the lowest to the highest bits of the colours.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> channel) & 1) << (7 - bit)).astype(np.uint8)
        numbers >>= 3
    return colours
