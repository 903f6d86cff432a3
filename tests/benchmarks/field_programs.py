"""The post-processors of the field beside the programs of the methods' authors, on the same simulated maps.

Needs an environment with nuclix, OpenCV and, for their rows, `stardist` and `cellpose`:

python tests/benchmarks/field_programs.py --rounds 5
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import regionprops
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

sys.path.insert(0, str(Path(__file__).parents[1]))

import field_maps
import field_oracles
from nuclix.ext.outlines import trace_outlines
from nuclix.plugins.postprocessors.boundary import Boundary
from nuclix.plugins.postprocessors.cellpose import Cellpose
from nuclix.plugins.postprocessors.hovernet import HoVerNet
from nuclix.plugins.postprocessors.stardist import StarDist
from peers import opencv

Maps = NDArray[np.float32]
Labels = NDArray[np.int32]
STEPS = 21  # px: Sobel filter of HoVer-Net
