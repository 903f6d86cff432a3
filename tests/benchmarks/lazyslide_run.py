"""The work of the plain script by LazySlide: its tiles, data loader, duplicate removal and GeoJSON around the same network.

    python tests/benchmarks/lazyslide_run.py SLIDE NETWORK.pt MARGIN SIZE P1 P2 OUT.geojson

Runs in an environment of its own with ``pip install lazyslide scikit-image``; NETWORK.pt is the TorchScript inside a model file
(a model file of nuclix is one). LazySlide leaves the split of touching nuclei to the model: here it is that of the plain script.
"""  # noqa: E501

from __future__ import annotations

import json
import sys
import time

import lazyslide
import numpy as np
import torch
from lazyslide_models.base import SegmentationModel, SegmentationOutput
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed
from wsidata import open_wsi

MPP = 0.25
SMALLEST_H = 1e-3


class Network(SegmentationModel):
    """The network, and the split of the plain script."""

    def __init__(self, path: str, p1: float, p2: float) -> None:
        self.model = torch.jit.load(path, map_location="cpu").eval()
        self.p1, self.p2 = p1, p2

    def get_transform(self):
        return lambda image: torch.from_numpy(np.ascontiguousarray(image[..., :3])).permute(2, 0, 1)

    @torch.inference_mode()
    def segment(self, image: torch.Tensor) -> SegmentationOutput:
        distances = self.model(image.contiguous(memory_format=torch.channels_last)).float().numpy()[:, 0]
        labels = np.stack([self._split(distance) for distance in distances])
        return SegmentationOutput(instance_map=labels)

    def _split(self, distance: np.ndarray) -> np.ndarray:
        floor = np.maximum(distance, self.p2)
        markers = label(h_maxima(floor, max(self.p1, SMALLEST_H)) & (distance > self.p2), connectivity=1)
        return watershed(-distance, markers, mask=distance > self.p2)


def main(slide: str, network: str, margin: str, size: str, p1: str, p2: str, out: str) -> None:
    began = time.perf_counter()
    wsi = open_wsi(slide, store=None)
    lazyslide.pp.find_tissues(wsi)
    edge, overlap = int(size), 2 * int(margin)
    lazyslide.pp.tile_tissues(wsi, edge, mpp=MPP, stride_px=edge - overlap, background_filter=False)
    lazyslide.seg.cells(wsi, Network(network, float(p1), float(p2)), batch_size=1, device="cpu", amp=False, pbar=False)
    cells = wsi.shapes["cells"]
    cells.to_file(out, driver="GeoJSON")
    sys.stdout.write(json.dumps({"nuclei": len(cells), "seconds": time.perf_counter() - began}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:8])
