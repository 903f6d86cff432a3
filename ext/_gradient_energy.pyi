import numpy as np
from numpy.typing import NDArray

def gradient(
    image: NDArray[np.float32],
    clumps: NDArray[np.int32],
    across: NDArray[np.float32],
    along: NDArray[np.float32],
    downwards: bool,
    out: NDArray[np.float32],
) -> None: ...
def energy(
    along_rows: NDArray[np.float32],
    along_cols: NDArray[np.float32],
    clumps: NDArray[np.int32],
    count: int,
    low: float,
    high: float,
    out: NDArray[np.float32],
) -> None: ...
def smoothed_inverse(image: NDArray[np.float32], mask: NDArray[np.uint8], out: NDArray[np.float32]) -> None: ...
def fill_holes(labels: NDArray[np.int32], clumps: NDArray[np.int32], boxes: NDArray[np.int32]) -> None: ...
