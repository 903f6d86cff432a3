"""Validation that the kernels' wrappers share: dtype, dimensions and memory order, never the values themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

CONNECTIVITIES = (4, 8)


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
