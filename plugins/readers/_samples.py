"""Conversion of a TIFF page's samples to 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# TIFF tag values (TIFF 6.0; Aperio's JPEG 2000 codes as libtiff lists them)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
JPEG_COMPRESSIONS = (6, 7)
APERIO_JPEG2000_YCBCR = 33003
INK_SET_TAG, INK_SET_CMYK = 332, 1
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
UNSIGNED = 1  # SampleFormat
FULL_16_BIT = 65535

Converter = Callable[[NDArray[Any]], NDArray[np.uint8]]


class UnsupportedPixelsError(ValueError):
    """The page's pixels are of a kind that has no one reading as 8-bit RGB."""


def converter(key: Any, samples: int, white: int | None) -> Converter:
    """Return the function that turns (height, width, samples) of a page into RGB.

    Parameters
    ----------
    key : tifffile.TiffPage
        The page's keyframe.
    samples : int
        Samples a pixel, over all planes.
    white : int or None
        The value of white in samples of 16 bits, where the metadata state fewer significant bits.

    Raises
    ------
    UnsupportedPixelsError
        If the page is not 8-bit RGB, grey, palette or CMYK, or 16-bit RGB.
    """
    photometric, bits = int(key.photometric), key.bitspersample
    if bits not in (1, 8, 16) or key.sampleformat != UNSIGNED:
        kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(int(key.sampleformat), "unknown")
        raise UnsupportedPixelsError(
            f"has {bits}-bit {kind} samples; nuclix reads unsigned 8-bit images and 16-bit RGB: convert it"
        )
    if bits == 16:
        return _from_16_bits(photometric, samples, white or FULL_16_BIT)
    if photometric == PALETTE and samples == 1:
        palette = (np.asarray(key.colormap) >> 8).astype(np.uint8).T
        return lambda tile: palette[tile[..., 0]]
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and samples <= 2:
        full = 255 if bits == 1 else 1
        inverted = photometric == WHITE_IS_ZERO
        return lambda tile: _from_grey(tile[..., 0].astype(np.uint8) * np.uint8(full), inverted)
    colour = _colour_converter(key, photometric, samples) if bits == 8 else None
    if colour is None:
        raise UnsupportedPixelsError(
            f"has {samples} samples a pixel (photometric {photometric}, compression {int(key.compression)}), "
            "which nuclix does not read as colours: convert it to RGB"
        )
    return colour


def _colour_converter(key: Any, photometric: int, samples: int) -> Converter | None:
    if photometric == SEPARATED and samples == 4 and key.tags.valueof(INK_SET_TAG, INK_SET_CMYK) == INK_SET_CMYK:
        return cmyk_to_rgb
    alpha = int(key.extrasamples[0]) if samples == 4 and key.extrasamples else None
    three_planes = photometric == BLACK_IS_ZERO and samples == 3  # OME-TIFF: a channel in each page
    if (photometric not in (RGB, YCBCR) and not three_planes) or samples not in (3, 4):
        return None
    if key.compression == APERIO_JPEG2000_YCBCR:
        return lambda tile: ycbcr_to_rgb(tile[..., :3])
    if photometric != YCBCR or key.compression in JPEG_COMPRESSIONS or key.compression > APERIO_JPEG2000_YCBCR:
        return lambda tile: over_white(tile, alpha)
    return None


def _from_16_bits(photometric: int, samples: int, white: int) -> Converter:
    """RGB has a white (65535 unless stated otherwise); what 16-bit grey means is its camera's secret."""
    if photometric not in (RGB, BLACK_IS_ZERO) or samples != 3:
        raise UnsupportedPixelsError(
            f"has {samples} 16-bit samples a pixel (photometric {photometric}), whose white and black are not stated: "
            "convert it to 8-bit RGB, with the contrast that you want"
        )

    def convert(tile: NDArray[Any]) -> NDArray[np.uint8]:
        scaled = (np.minimum(tile, white).astype(np.uint32) * 255 + white // 2) // white
        return scaled.astype(np.uint8)

    return convert


def _from_grey(grey: NDArray[np.uint8], white_is_zero: bool) -> NDArray[np.uint8]:
    return np.repeat((255 - grey if white_is_zero else grey)[..., None], 3, axis=2)


def over_white(tile: NDArray[np.uint8], alpha: int | None) -> NDArray[np.uint8]:
    """Lay RGB(A) samples over white; `alpha` is TIFF's ExtraSamples value, other kinds than alpha are dropped."""
    rgb = tile[..., :3]
    if alpha not in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA):
        return np.ascontiguousarray(rgb)
    opacity = tile[..., 3:4].astype(np.uint16)
    colour = rgb.astype(np.uint16) * (opacity if alpha == UNASSOCIATED_ALPHA else np.uint16(255))
    return np.minimum((colour + 255 * (255 - opacity) + 127) // 255, 255).astype(np.uint8)


def cmyk_to_rgb(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert CMYK to RGB without a profile: each ink multiplies what the paper reflects."""
    light = 255 - tile.astype(np.uint16)
    return ((light[..., :3] * light[..., 3:4] + 127) // 255).astype(np.uint8)


def ycbcr_to_rgb(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert full-range YCbCr to RGB (ITU-T T.871, section 7)."""
    luma, blue, red = (tile[..., channel].astype(np.float32) for channel in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
