"""The work of the plain script by TIAToolbox: its reader, tissue mask, patches, tiles and instances around the same network.

    python tests/benchmarks/tiatoolbox_run.py SLIDE NETWORK.pt MARGIN SIZE P1 P2 OUT_FOLDER

Runs in an environment of its own with ``pip install tiatoolbox scikit-image``; NETWORK.pt is the TorchScript inside a model file
(a model file of nuclix is one). The network takes HoVer-Net's place in the toolbox, and the split that of HoVer-Net's maps.
"""  # noqa: E501

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed
from tiatoolbox.models.architecture.hovernet import HoVerNet
from tiatoolbox.models.engine.io_config import IOInstanceSegmentorConfig
from tiatoolbox.models.engine.nucleus_instance_segmentor import NucleusInstanceSegmentor

MPP = {"units": "mpp", "resolution": 0.25}
SMALLEST_H = 1e-3
TILE_PX = 4096  # the toolbox' usual tile of a slide


class Network(HoVerNet):
    """The network in the place of HoVer-Net: the distance as the nucleus map."""

    def __init__(self, path: str, margin: int) -> None:
        super().__init__(num_types=None, mode="fast")
        self.network = torch.jit.load(path, map_location="cpu").eval()
        self.margin = margin

    @staticmethod
    def infer_batch(model: Network, batch_data: torch.Tensor, *, device: str) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            maps = model.network(batch_data.permute(0, 3, 1, 2)).float()
        distance = maps[:, 0, model.margin : -model.margin, model.margin : -model.margin, None].numpy()
        return distance, np.repeat(distance, 2, axis=-1)


def splitter(p1: float, p2: float):
    """Return the split of the plain script in the place of HoVer-Net's."""

    def split(distance: np.ndarray, _: np.ndarray, **_more: object) -> np.ndarray:
        distance = np.ascontiguousarray(distance[..., 0])
        floor = np.maximum(distance, p2)
        markers = label(h_maxima(floor, max(p1, SMALLEST_H)) & (distance > p2), connectivity=1)
        return watershed(-distance, markers, mask=distance > p2)

    return split


def main(slide: str, network: str, margin: str, size: str, p1: str, p2: str, out: str) -> None:
    began = time.perf_counter()
    edge, inner = int(size), int(size) - 2 * int(margin)
    HoVerNet._proc_np_hv = staticmethod(splitter(float(p1), float(p2)))
    config = IOInstanceSegmentorConfig(
        input_resolutions=[MPP],
        output_resolutions=[MPP, MPP],
        patch_input_shape=[edge, edge],
        patch_output_shape=[inner, inner],
        stride_shape=[inner, inner],
        margin=64,
        tile_shape=[TILE_PX, TILE_PX],
    )
    engine = NucleusInstanceSegmentor(Network(network, int(margin)), batch_size=1, device="cpu", verbose=False)
    found = engine.run(
        [Path(slide)],
        patch_mode=False,
        ioconfig=config,
        save_dir=Path(out),
        output_type="annotationstore",
        device="cpu",
    )
    sys.stdout.write(json.dumps({"out": str(found), "seconds": time.perf_counter() - began}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:8])
