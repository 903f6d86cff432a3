import numpy as np
from numpy.typing import NDArray

def shapes(
    rings: NDArray[np.int64], shells: NDArray[np.uint8], offsets: NDArray[np.int64], corners: NDArray[np.int32]
) -> NDArray[np.float64]: ...
