import numpy as np
from numpy.typing import NDArray

def energies(
    mask: NDArray[np.uint8],
    horizontal: NDArray[np.float32],
    vertical: NDArray[np.float32],
    smooth: NDArray[np.float32],
    slope: NDArray[np.float32],
    low: float,
    high: float,
    limit: float,
    min_area: int,
    min_marker: int,
    inside: NDArray[np.uint8],
    heights: NDArray[np.float32],
    markers: NDArray[np.int32],
) -> None: ...
def fill_label_holes(labels: NDArray[np.int32], clumps: NDArray[np.int32], boxes: NDArray[np.int32]) -> None: ...
