import numpy as np
from numpy.typing import NDArray

UNITS_PER_PIXEL: int

def largest_polygons(
    rings: NDArray[np.int64], shells: NDArray[np.uint8], offsets: NDArray[np.int64], corners: NDArray[np.int32]
) -> NDArray[np.int64]: ...
def smooth(
    polygons: NDArray[np.int64], offsets: NDArray[np.int64], corners: NDArray[np.int32], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...
