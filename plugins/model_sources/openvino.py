"""TorchScript run by OpenVINO on a CPU (``pip install openvino``, ``nuclix run --runtime openvino``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DeviceError, ModelError
from nuclix.engine.model_card import ModelCard

if TYPE_CHECKING:
    import torch

INSTALL = "--runtime openvino needs OpenVINO: pip install openvino"


class OpenVinoSource:
    """Converts a model file's network when it is loaded; computes in float32 or, under autocast, bfloat16."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return False: it has no format of its own, and is asked for by name."""
        return False

    @classmethod
    def card_text(cls, path: Path) -> bytes | None:
        """Return None: TorchScript's card is read without it."""
        return None

    @classmethod
    def with_card(cls, content: bytes, card: bytes) -> bytes:
        """Raise `ModelError`: it recognises no file."""
        raise ModelError("OpenVINO has no model file of its own: pack TorchScript or ONNX")

    @classmethod
    def load(cls, path: Path, card: ModelCard, device: str, *, trust: bool = False) -> Callable[[torch.Tensor], Any]:
        """Return a callable that runs the network.

        Raises
        ------
        ModelError
            If OpenVINO is missing, the card asks for an adapter around the network, or the network can't be converted.
        DeviceError
            If another device than the CPU is asked for.
        """
        import torch

        from nuclix.engine.inference.model_file import load_torchscript

        if not device.startswith("cpu"):
            raise DeviceError(f"--runtime openvino runs on the CPU, not on {device}: add --device cpu")
        if not card.is_plain:
            raise ModelError(f"{path}: its card stands next to it; make one model file with `nuclix pack` first")
        try:
            import openvino
        except ImportError:
            raise ModelError(f"{path}: {INSTALL}") from None
        size = card.patch.size
        module = load_torchscript(path, "cpu", trust=trust)
        try:
            example = torch.zeros(1, 3, size, size, dtype=torch.uint8)
            model = openvino.convert_model(module, example_input=example, input=[-1, 3, size, size])
            model.validate_nodes_and_infer_types()
        except Exception as error:  # OpenVINO's errors have no common base but this
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ModelError(f"{path}: OpenVINO can't convert this network: {lines[-1]}") from error
        return _Network(model, openvino.Core())


class _Network:
    """Runs a converted model on batches, in the arithmetic and with the number of threads that PyTorch is set to."""

    def __init__(self, model: Any, core: Any) -> None:
        self._model = model
        self._core = core
        self._compiled: dict[tuple[str, int], Any] = {}

    def __call__(self, images: torch.Tensor) -> Any:
        import numpy as np
        import torch

        # Planar bytes: the conversion knows the order of axes that the network was made for.
        result = self._network()(np.ascontiguousarray(images.numpy()))[0]
        return torch.from_numpy(result.copy())

    def _network(self) -> Any:
        """Return the model compiled for the present settings."""
        import torch

        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        key = ("bf16" if half else "f32", torch.get_num_threads())
        if key not in self._compiled:
            hints = {"INFERENCE_PRECISION_HINT": key[0], "INFERENCE_NUM_THREADS": key[1]}
            self._compiled[key] = self._core.compile_model(self._model, "CPU", hints)
        return self._compiled[key]
