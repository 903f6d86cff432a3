"""Validation that the kernels' wrappers share: dtype, dimensions and memory order, never the values themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

CONNECTIVITIES = (4, 8)
EXACT_FLOAT32 = 2**24  # integers up to here are float32 numbers


def _names(dtypes: Iterable[DTypeLike]) -> str:
    return ", ".join(np.dtype(dtype).name for dtype in dtypes)


def as_image(array: ArrayLike, name: str, dtypes: Iterable[DTypeLike]) -> NDArray[Any]:
    """Return `array` as a C-contiguous image in native byte order; a copy only where it is not one already.

    Parameters
    ----------
    array : (H, W) array_like
        Any memory order; it may be read-only.
    name : str
        What the caller calls it, for messages.
    dtypes : iterable of dtype
        Those admitted.

    Returns
    -------
    (H, W) array
        Same values and kind of number; read-only where `array` is.

    Raises
    ------
    TypeError
        If the dtype is not among `dtypes`; nothing is converted silently.
    ValueError
        If there are not two dimensions.
    """
    image = np.asarray(array)
    admitted = [np.dtype(dtype) for dtype in dtypes]
    if image.dtype.newbyteorder("=") not in admitted:
        raise TypeError(f"`{name}` is {image.dtype}; it must be one of {_names(admitted)}: convert it first")
    if image.ndim != 2:
        raise ValueError(f"`{name}` has {image.ndim} dimensions (shape {image.shape}); it must have 2")
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))


def as_mask(array: ArrayLike, name: str = "mask") -> NDArray[np.uint8]:
    """Return a bool or uint8 mask as C-contiguous bytes; everything but 0 is foreground.

    Raises
    ------
    TypeError
        If the dtype is neither bool nor uint8.
    ValueError
        If there are not two dimensions.
    """
    return as_image(array, name, (np.bool_, np.uint8)).view(np.uint8)


def as_labels(array: ArrayLike, name: str = "labels") -> NDArray[Any]:
    """Return a label image of any integer dtype, C-contiguous; bool counts as one instance.

    Raises
    ------
    TypeError
        If the dtype is not integer or bool.
    ValueError
        If there are not two dimensions.
    """
    labels = as_image(array, name, (np.bool_, *np.typecodes["AllInteger"]))
    return labels.view(np.uint8) if labels.dtype == np.bool_ else labels


def check_shape(array: NDArray[Any], shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError if `array` does not have `shape`."""
    if array.shape != shape:
        raise ValueError(f"`{name}` has shape {array.shape}; it must be {shape} like the image")


def check_connectivity(connectivity: int) -> int:
    """Return `connectivity`; raise ValueError if it is neither 4 nor 8."""
    if connectivity not in CONNECTIVITIES:
        raise ValueError(f"`connectivity` is {connectivity}; it must be 4 (edges) or 8 (edges and corners)")
    return int(connectivity)


def as_heights(array: ArrayLike, name: str = "image") -> NDArray[np.float32]:
    """Return heights as C-contiguous float32 without changing a value.

    Parameters
    ----------
    array : (H, W) array_like
        float32, float16 or integers of at most 2^24 in magnitude, all of which float32 holds exactly.
    name : str
        What the caller calls it, for messages.

    Returns
    -------
    (H, W) float32 array
        A view of `array` where that is C-contiguous float32 already.

    Raises
    ------
    TypeError
        If the dtype is none of these (float64 would be rounded and gain ties: convert it first).
    ValueError
        If there are not two dimensions, or an integer is too large.
    """
    image = as_image(array, name, (np.float32, np.float16, *np.typecodes["AllInteger"]))
    wide = image.dtype.kind in "iu" and image.dtype.itemsize > 2
    if wide and image.size and (int(image.max()) > EXACT_FLOAT32 or int(image.min()) < -EXACT_FLOAT32):
        raise ValueError(f"`{name}` has values beyond 2^24, which float32 does not hold exactly")
    return image.astype(np.float32, copy=False)


def check_dynamics(h: float, floor: float | None) -> tuple[float, float]:
    """Return `h` and `floor` for the kernel, where NaN says that there is no floor.

    Raises
    ------
    ValueError
        If `h` is negative or not finite, or `floor` is NaN.
    """
    if not 0 <= h < np.inf:
        raise ValueError(f"`h` is {h}; it must be a finite number of at least 0")
    if floor is not None and np.isnan(floor):
        raise ValueError("`floor` is NaN; it must be a number")
    return float(h), np.nan if floor is None else float(floor)


def check_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return `mask` as bytes of the image's `shape`, or None where there is none."""
    if mask is None:
        return None
    array = as_mask(mask)
    check_shape(array, shape, "mask")
    return array
