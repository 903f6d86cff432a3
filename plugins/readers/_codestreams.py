"""Width and height that a compressed tile states in its own header, read without decoding it.

A decoder allocates what the header asks for. A tile of 256 px whose JPEG header says 65,000 x 65,000 would take 13 GB
before any of its pixels is known, so the header is compared with the page's tile first.
"""

from __future__ import annotations

import struct

JPEG_CODES = (6, 7)  # Compression tags: TIFF 6.0, TIFF Technical Note 2
JPEG2000_CODES = (33003, 33004, 33005, 34712)  # Aperio's three and Leica's, as tifffile's COMPRESSION lists them
WEBP_CODES = (34927, 50001)
PNG_CODES = (34933,)

PREFIX = b"\xff"  # of every JPEG marker
NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, RSTn, SOI: markers without a segment (ITU-T T.81, B.1.1.3)
FRAME_STARTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn without DHT, JPG, DAC (T.81, table B.1)
SCAN_START = 0xDA
JPEG2000_SIZE = b"\xff\x4f\xff\x51"  # SOC followed by SIZ (ITU-T T.800, A.4 and A.5.1)
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def stated_size(compression: int, data: bytes) -> tuple[int, int] | None:
    """Return what a code stream says of its own size.

    Parameters
    ----------
    compression : int
        The page's Compression tag.
    data : bytes
        The tile as it is in the file.

    Returns
    -------
    tuple of int or None
        Height and width in pixels; None where the kind of stream has no header that is known here, or a damaged one.
    """
    reader = {
        **dict.fromkeys(JPEG_CODES, _jpeg),
        **dict.fromkeys(JPEG2000_CODES, _jpeg2000),
        **dict.fromkeys(WEBP_CODES, _webp),
        **dict.fromkeys(PNG_CODES, _png),
    }.get(compression)
    if reader is None:
        return None
    try:
        return reader(data)
    except (struct.error, IndexError):
        return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk over the segments up to the frame header (T.81, B.2.2)."""
    at = 0
    while at + 4 <= len(data):
        if data[at : at + 1] != PREFIX:
            return None
        marker = data[at + 1]
        if marker in FRAME_STARTS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        if marker == SCAN_START:
            return None
        if marker == PREFIX[0]:  # a fill byte
            at += 1
        elif marker in NO_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    at = data.find(JPEG2000_SIZE)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + len(JPEG2000_SIZE) + 4)
    return bottom - top, right - left


def _webp(data: bytes) -> tuple[int, int] | None:
    """Read the first chunk: lossy, lossless or extended (RFC 9649, sections 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", body, 1)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(PNG_HEAD):
        return None
    width, height = struct.unpack_from(">II", data, len(PNG_HEAD) + 8)
    return height, width
