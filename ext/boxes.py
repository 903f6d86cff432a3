"""Where labels lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nuclix.ext import _components
from nuclix.ext._check import as_image


def _labels(labels: ArrayLike, count: int) -> NDArray[np.int32]:
    image = as_image(labels, "labels", (np.int32,))
    if image.size and (image.min() < 0 or image.max() > count):
        raise ValueError(f"labels must lie in 0..{count}; found {image.min()}..{image.max()}")
    return image


def label_boxes(labels: ArrayLike, count: int) -> NDArray[np.int32]:
    """Return the bounding boxes of labels.

    Parameters
    ----------
    labels : (H, W) int32 array_like
        0 is background.
    count : int
        The highest label that may occur.

    Returns
    -------
    (count + 1, 4) int32
        First row, first column, end row and end column (exclusive) of each label; row 0 stands for nothing, and a
        label without pixels has (H, W, 0, 0).

    Raises
    ------
    TypeError, ValueError
        If `labels` is not a two-dimensional int32 array, or holds values outside 0..count.

    Examples
    --------
    >>> import numpy as np
    >>> label_boxes(np.array([[0, 1], [1, 1]], np.int32), 1)[1]
    array([0, 0, 2, 2], dtype=int32)
    """
    image = _labels(labels, count)
    boxes = np.zeros((count + 1, 4), np.int32)
    boxes[:, :2] = image.shape
    if image.size:
        _components.label_boxes(image, boxes)
    return boxes
