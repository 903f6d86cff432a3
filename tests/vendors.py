"""Small slides laid out as scanners and programs do: NDPI, VMS, SCN, CZI, OME-TIFF."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as PillowImage

from slides import Image, reduced

STRIPE = 128  # pixels between the restart markers of an NDPI's JPEG
SHORT, LONG, RATIONAL, SLONG, FLOAT, ASCII = 3, 4, 5, 9, 11, 2
NM_PER_CM = 10**7
SCN = "http://www.leica-microsystems.com/scn/2010/10/01"


def write_ndpi(path: Path, image: Image, mpp: float, downs: tuple[int, ...] = (1, 2, 4)) -> Path:
    """Write a Hamamatsu slide: each level one JPEG with restart markers, whose places a tag lists."""
    content = bytearray(b"II*\0" + bytes(8))
    link = 4  # where the place of the next directory is written
    macro = [(image[:80, :200].copy(), -1.0, 0)]
    for pixels, lens, down in [(reduced(image, down), 40 / down, down) for down in downs] + macro:
        start = len(content)
        jpeg, mcus = _restarting_jpeg(pixels) if down else (_jpeg(pixels, 0), [])
        content += jpeg + bytes(len(jpeg) % 2)
        perpixel = (round(1e7 / (mpp * down)) if down else 1, 1000)
        tags: list[tuple[int, int, tuple[float, ...] | bytes]] = [
            (256, LONG, (pixels.shape[1],)),
            (257, LONG, (pixels.shape[0],)),
            (258, SHORT, (8, 8, 8)),
            (259, SHORT, (7,)),
            (262, SHORT, (6,)),
            (271, ASCII, b"Hamamatsu\0"),
            (272, ASCII, b"NanoZoomer\0"),
            (273, LONG, (start,)),
            (277, SHORT, (3,)),
            (278, LONG, (pixels.shape[0],)),
            (279, LONG, (len(jpeg),)),
            (282, RATIONAL, perpixel),
            (283, RATIONAL, perpixel),
            (296, SHORT, (3,)),
            (530, SHORT, (1, 1)),
            (65420, LONG, (1,)),
            (65421, FLOAT, (lens,)),
            (65422, SLONG, (0,)),
            (65423, SLONG, (0,)),
            (65424, SLONG, (0,)),
            *([(65426, LONG, tuple(mcus))] if down else []),
            (65427, ASCII, b"a test\0"),
        ]
        link = _append_directory(content, link, tags)
    path.write_bytes(content)
    return path


def _append_directory(content: bytearray, link: int, tags: list[tuple[int, int, tuple[float, ...] | bytes]]) -> int:
    """Append an NDPI directory (64-bit links, the high halves of values after it); return where the next links."""
    entries = b""
    for code, kind, values in tags:
        letter = {SHORT: "H", LONG: "I", RATIONAL: "I", SLONG: "i", FLOAT: "f"}.get(kind)
        data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{letter}", *values)
        count = 1 if kind == RATIONAL else len(values)
        if len(data) > 4:
            place = len(content)
            content += data + bytes(len(data) % 2)
            data = struct.pack("<I", place)
        entries += struct.pack("<HHI", code, kind, count) + data.ljust(4, b"\0")
    content[link : link + 8] = struct.pack("<Q", len(content))
    content += struct.pack("<H", len(tags)) + entries
    following = len(content)
    content += bytes(8) + bytes(4 * len(tags))
    return following


def _jpeg(pixels: Image, restart: int) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0, restart_marker_blocks=restart)
    return buffer.getvalue()


def _restarting_jpeg(pixels: Image) -> tuple[bytes, list[int]]:
    """Return a JPEG with a restart marker every `STRIPE` pixels, and where the data between markers begin."""
    assert pixels.shape[1] % STRIPE == 0
    assert pixels.shape[0] % 8 == 0
    jpeg = _jpeg(pixels, STRIPE // 8)
    scan = jpeg.index(b"\xff\xda")
    starts = [scan + 2 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0]]
    for at in range(starts[0], len(jpeg) - 1):
        if jpeg[at] == 0xFF and 0xD0 <= jpeg[at + 1] <= 0xD7:
            starts.append(at + 2)
    assert len(starts) == pixels.shape[0] // 8 * pixels.shape[1] // STRIPE
    return jpeg, starts


def write_scn(path: Path, regions: list[tuple[int, int, Image]], size: tuple[int, int]) -> Path:
    """Write a Leica slide of `size` pixels of 0.25 um: a macro image, and regions at (row, column), two levels each."""
    nm = 250
    pages: list[tuple[Image, float]] = [(np.full((64, 64, 3), 200, np.uint8), size[0] * nm / 64)]
    height, width = (length * nm for length in size)
    images = [_scn_image((0, 0, height, width), [(64, 64)], 0)]
    for row, col, image in regions:
        levels = [image, reduced(image, 4)]
        place = (row * nm, col * nm, image.shape[0] * nm, image.shape[1] * nm)
        images.append(_scn_image(place, [(level.shape[0], level.shape[1]) for level in levels], len(pages)))
        pages += zip(levels, (nm, 4 * nm), strict=True)
    xml = (
        f'<?xml version="1.0"?><scn xmlns="{SCN}"><collection name="c" sizeX="{width}" sizeY="{height}">'
        f"<barcode>x</barcode>{''.join(images)}</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, (page, page_nm) in enumerate(pages):
            file.write(
                page,
                tile=(128, 128),
                compression="jpeg",
                photometric="rgb",
                metadata=None,
                description=xml if index == 0 else None,
                resolution=(NM_PER_CM / page_nm, NM_PER_CM / page_nm),
                resolutionunit="centimeter",
            )
    return path


def _scn_image(place: tuple[int, int, int, int], sizes: list[tuple[int, int]], first: int) -> str:
    row, col, height, width = place
    dimensions = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{level}" ifd="{first + level}"/>' for level, (h, w) in enumerate(sizes)
    )
    return (
        f'<image name="i"><creationDate>2020</creationDate><device model="m" version="1"/>'
        f'<pixels sizeX="{sizes[0][1]}" sizeY="{sizes[0][0]}">{dimensions}</pixels>'
        f'<view sizeX="{width}" sizeY="{height}" offsetX="{col}" offsetY="{row}"/>'
        "<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.65</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
    )


def write_vms(path: Path, image: Image, mpp: float) -> Path:
    """Write a Hamamatsu VMS: a text file that names a JPEG with restart markers, and an overview."""
    jpeg, _ = _restarting_jpeg(image)
    path.with_suffix(".jpg").write_bytes(jpeg)
    path.with_suffix(".map.jpg").write_bytes(_restarting_jpeg(reduced(image, 4)[:, : image.shape[1] // 4])[0])
    height, width = (round(length * mpp * 1000) for length in image.shape[:2])
    path.write_text(
        "[Virtual Microscope Specimen]\n"
        "NoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\n"
        f"ImageFile={path.stem}.jpg\nMapFile={path.stem}.map.jpg\n"
        f"PhysicalWidth={width}\nPhysicalHeight={height}\nSourceLens=40\n"
    )
    return path


def write_czi(path: Path, scenes: list[tuple[int, int, NDArray[Any]]], um: float | None = 0.25) -> Path:
    """Write a Zeiss CZI: images in RGB or grey at (row, column), in tiles of 256 px."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as document:
        for number, (row, col, image) in enumerate(scenes):
            for top in range(0, image.shape[0], 256):
                for left in range(0, image.shape[1], 256):
                    tile = np.ascontiguousarray(image[top : top + 256, left : left + 256, ::-1])
                    place = (col + left, row + top)
                    document.write(data=tile, location=place, scene=number, compression_options="zstd1:")
        if um is not None:
            document.write_metadata(document_name="a test", scale_x=um * 1e-6, scale_y=um * 1e-6)
    return path


def write_ome(
    path: Path, image: Image, layout: str = "interleaved", downs: tuple[int, ...] = (1,), **meta: Any
) -> Path:
    """Write an OME-TIFF whose colours are interleaved, in planes of a page, or in pages of their own."""
    options: dict[str, Any] = {"tile": (128, 128), "compression": "zlib"}
    if layout == "interleaved":
        options |= {"photometric": "rgb"}
        axes = "YXS"
    elif layout == "planes":
        options |= {"photometric": "rgb", "planarconfig": "separate"}
        axes = "SYX"
    else:
        options |= {"photometric": "minisblack"}
        axes = "CYX"
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as file:
        for down in downs:
            level = reduced(image, down)
            pixels = level if layout == "interleaved" else np.ascontiguousarray(np.moveaxis(level, 2, 0))
            first = {"subifds": len(downs) - 1, "metadata": {"axes": axes, **sizes, **meta}}
            file.write(pixels, **options, **(first if down == 1 else {"subfiletype": 1}))
    return path
