"""Make networks of OpenVINO from the TorchScript of a model file: in float32, and quantised to int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError
from nuclix.engine.inference.embedded import NetworkFiles
from nuclix.engine.model_card import ModelCard

INSTALL_NNCF = "--int8 needs NNCF: pip install nncf"


def converted(path: Path, card: ModelCard, content: bytes | None = None, *, trust: bool = False) -> Any:
    """Return the TorchScript network of a model file as an `openvino.Model` for patches of any size.

    Raises
    ------
    ModelError
        If the file can't be loaded, or OpenVINO can't convert the network.
    """
    import torch
    from openvino.tools.ovc import convert_model

    from nuclix.engine.inference.model_file import load_torchscript

    module = load_torchscript(path, "cpu", trust=trust, content=content)
    size = card.patch.size
    try:
        example = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        model = convert_model(module, example_input=example, input=[-1, 3, -1, -1])
        model.validate_nodes_and_infer_types()
    except Exception as error:  # OpenVINO's errors have no common base but this
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ModelError(f"{path}: OpenVINO can't convert this network: {lines[-1]}") from error
    return model


def quantised(files: NetworkFiles, patches: Sequence[NDArray[np.uint8]], path: Path) -> NetworkFiles:
    """Return a network whose convolutions compute in int8, with the ranges of activations that patches give.

    Weights take half of the range that int8 has: products of two bytes are added in pairs of 16 bits by CPUs without
    instructions for int8, where larger ones would overflow. So all CPUs compute the same.

    Parameters
    ----------
    files : NetworkFiles
        In float32.
    patches : sequence of (size, size, 3) uint8
        Tissue at the model's scale.
    path : Path
        The model file, for messages.

    Raises
    ------
    ModelError
        If NNCF is not installed, or can't quantise the network.
    """
    import openvino

    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        try:
            import nncf
        except ImportError:
            raise ModelError(f"{path}: {INSTALL_NNCF}") from None
        inputs = [np.ascontiguousarray(patch.transpose(2, 0, 1)[None]) for patch in patches]
        options = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        try:
            model = openvino.Core().read_model(files.graph, files.weights)
            found = nncf.quantize(
                model,
                nncf.Dataset(inputs),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
                advanced_parameters=options,
            )
        except Exception as error:  # NNCF's errors have no common base but this
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ModelError(f"{path}: NNCF can't quantise this network: {lines[-1]}") from error
    return network_files(found)


class _quiet:  # noqa: N801 (a context manager)
    """Silence the progress of NNCF on the terminal."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._before)


def network_files(model: Any) -> NetworkFiles:
    """Return a network as the files that OpenVINO writes, in full precision."""
    import openvino

    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return NetworkFiles(path.read_bytes(), path.with_suffix(".bin").read_bytes())
