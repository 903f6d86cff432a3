"""What one would write in an afternoon: tiles, a network, scikit-image, OpenCV and json. The yardstick of `nuclix run`.

    python tests/benchmarks/plain_script.py SLIDE MODEL OUT.geojson

Same model, same patches, same arithmetic as nuclix; nuclei at the tiles' edges are cut, as such scripts do.
Needs the `bench` extra.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import tiffslide
import torch
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from nuclix.engine.inference.device import cpu_has_bfloat16
from nuclix.engine.inference.model_file import load_model

SMALLEST_H = 1e-3  # scikit-image wants a depth; the same maxima as with none, on a float map


def tissue_of(slide: tiffslide.TiffSlide) -> tuple[np.ndarray, float]:
    """Where the coarsest level is saturated."""
    level = slide.level_count - 1
    rgb = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3]
    saturation = rgb2hsv(rgb)[..., 1]
    return saturation > threshold_otsu(saturation), slide.level_downsamples[level]


def nuclei_of(distance: np.ndarray, p1: float, p2: float) -> np.ndarray:
    """DIST's split with scikit-image."""
    floor = np.maximum(distance, p2)
    markers = label(h_maxima(floor, max(p1, SMALLEST_H)) & (distance > p2), connectivity=1)
    return watershed(-distance, markers, mask=distance > p2)


def main(path: str, model_path: str, out: str) -> None:
    seconds: dict[str, float] = defaultdict(float)
    model = load_model(Path(model_path), "cpu")
    patch, parameters = model.card.patch, model.card.parameters
    slide = tiffslide.TiffSlide(path)
    width, height = slide.dimensions
    tissue, down = tissue_of(slide)
    features = []
    for top in range(0, height, patch.valid):
        for left in range(0, width, patch.valid):
            rows = slice(int(max(0, top - patch.margin) / down), int((top + patch.valid + patch.margin) / down) + 1)
            cols = slice(int(max(0, left - patch.margin) / down), int((left + patch.valid + patch.margin) / down) + 1)
            if not tissue[rows, cols].any():
                continue
            start = time.perf_counter()
            region = slide.read_region(
                (left - patch.margin, top - patch.margin), 0, (patch.size, patch.size), as_array=True
            )
            seconds["read"] += time.perf_counter() - start
            start = time.perf_counter()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
                tensor = torch.from_numpy(np.ascontiguousarray(region[..., :3])).permute(2, 0, 1)[None]
                maps = model.module(tensor).float().numpy()[0, 0]
            distance = maps[patch.margin : -patch.margin, patch.margin : -patch.margin].copy()
            seconds["network"] += time.perf_counter() - start
            start = time.perf_counter()
            labels = nuclei_of(distance, parameters["p1"], parameters["p2"])
            seconds["h_maxima and watershed"] += time.perf_counter() - start
            start = time.perf_counter()
            for region_props in regionprops(labels):
                mask = np.pad(region_props.image.astype(np.uint8), 1)
                contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                ring = contours[0][:, 0, :] - 1 + [region_props.bbox[1] + left, region_props.bbox[0] + top]
                if len(ring) < 3:
                    continue
                features.append(
                    {
                        "type": "Feature",
                        "id": str(uuid.uuid4()),
                        "geometry": {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]},
                        "properties": {"objectType": "detection", "measurements": {"Area": float(region_props.area)}},
                    }
                )
            seconds["contours"] += time.perf_counter() - start
    start = time.perf_counter()
    with Path(out).open("w") as file:
        json.dump({"type": "FeatureCollection", "features": features}, file)
    seconds["json"] += time.perf_counter() - start
    sys.stdout.write(f"{len(features)} nuclei; " + ", ".join(f"{k} {v:.1f} s" for k, v in seconds.items()) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
