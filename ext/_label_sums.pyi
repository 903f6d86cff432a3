from typing import Any

import numpy as np
from numpy.typing import NDArray

def sums(labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]: ...
