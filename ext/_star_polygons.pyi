import numpy as np
from numpy.typing import NDArray

def cover(
    distances: NDArray[np.float32], rows: NDArray[np.int32], cols: NDArray[np.int32], out: NDArray[np.uint8]
) -> None: ...
def gather(
    planes: NDArray[np.float32],
    mask: NDArray[np.uint8],
    low: float,
    high: float,
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    out: NDArray[np.float32],
) -> None: ...
def select(
    distances: NDArray[np.float32],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    order: NDArray[np.int64],
    owners: NDArray[np.int32],
    overlap: float,
    clumps: NDArray[np.int32],
    out: NDArray[np.int32],
    winners: NDArray[np.int32],
) -> int: ...
