"""Networks that OpenVINO computes on a CPU (``pip install openvino``): those inside a model file, or TorchScript."""

from __future__ import annotations

import importlib.util
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import ModelError, UsageError
from nuclix.engine.inference.device import cpu_has_bfloat16
from nuclix.engine.inference.embedded import NetworkFiles, network_names, read_network
from nuclix.engine.inference.runtime import ArraySettings
from nuclix.engine.model_card import ModelCard
from nuclix.engine.registry import installed_version
from nuclix.engine.run_config import INT8
from nuclix.plugins.model_sources._openvino_graph import check_graph

if TYPE_CHECKING:
    import torch

NAME = "openvino"
CONVERTER = "openvino.tools.ovc"
INSTALL = "--runtime openvino needs OpenVINO: pip install openvino"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
# Patches at the same time, one thread each. Threads that share a patch wait for each other after every layer, which
# costs the more the busier the CPU is. Above so many, several threads share one, for each has its own maps in memory.
MAX_STREAMS = 8


class OpenVinoSource:
    """Computes in float32, bfloat16 or int8, several patches at a time. It is a `ModelSource` and an `ArrayRuntime`."""

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
        """Raise `ModelError`: it takes arrays; see `open`."""
        raise ModelError(f"{path}: OpenVINO does not compute tensors of PyTorch")

    @classmethod
    def preload(cls) -> None:
        """Import OpenVINO in a worker's process, without its converter.

        `openvino` tries to import the converter, which takes half of the time and reports the import to OpenVINO's
        makers where a user of the computer has agreed to that; it goes without one that can't be imported.
        """
        hidden = CONVERTER not in sys.modules
        if hidden:
            sys.modules[CONVERTER] = None  # type: ignore[assignment]
        try:
            import openvino  # noqa: F401
        finally:
            if hidden:
                del sys.modules[CONVERTER]

    @classmethod
    def suits(cls, card: ModelCard, precision: str) -> bool:
        """Return whether OpenVINO is installed, and the model file holds a network for it in this precision."""
        needed = {"auto": FLOAT32, FLOAT32: FLOAT32, INT8: INT8}
        if cpu_has_bfloat16():
            needed[BFLOAT16] = FLOAT32
        return needed.get(precision, "") in network_names(card, NAME) and importlib.util.find_spec(NAME) is not None

    @classmethod
    def precision(cls, wanted: str) -> str:
        """Return float32, int8 or bfloat16; by default the faster of the floating-point formats.

        Raises
        ------
        UsageError
            If the name is unknown, or the CPU does not compute in it.
        """
        if wanted == "auto":
            return BFLOAT16 if cpu_has_bfloat16() else FLOAT32
        if wanted not in (FLOAT32, BFLOAT16, INT8):
            raise UsageError(f"--runtime openvino has no precision {wanted!r}: use {FLOAT32}, {BFLOAT16} or {INT8}")
        if wanted == BFLOAT16 and not cpu_has_bfloat16():
            raise UsageError(f"this CPU does not compute in {BFLOAT16}: use {FLOAT32}")
        return wanted

    @classmethod
    def pack(cls, path: Path, card: ModelCard, calibration: Sequence[NDArray[np.uint8]]) -> dict[str, NetworkFiles]:
        """Return the TorchScript network of a model file for OpenVINO, in float32 and, with patches, in int8.

        Raises
        ------
        ModelError
            If OpenVINO or, for int8, NNCF is missing, or the network can't be converted.
        """
        if importlib.util.find_spec(NAME) is None:
            raise ModelError(f"{path}: {INSTALL}")
        from nuclix.plugins.model_sources._openvino_pack import converted, network_files, quantised

        found = {FLOAT32: network_files(converted(path, card))}
        check_graph(found[FLOAT32].graph, str(path))
        return {**found, INT8: quantised(found[FLOAT32], calibration, path)} if calibration else found

    @classmethod
    def open(cls, path: Path, content: bytes, card: ModelCard, settings: ArraySettings) -> OpenVinoQueue:
        """Return the network of a model file, ready to compute; without one for OpenVINO, its TorchScript is converted.

        Raises
        ------
        ModelError
            If OpenVINO is missing, the card asks for an adapter around the network, a network inside the file is
            damaged or of other weights, or OpenVINO can't run it.
        """
        if not card.is_plain:
            raise ModelError(f"{path}: its card stands next to it; make one model file with `nuclix pack` first")
        try:
            import openvino
        except ImportError:
            raise ModelError(f"{path}: {INSTALL}") from None
        core = openvino.Core()
        wanted = INT8 if settings.precision == INT8 else FLOAT32
        try:
            if wanted in network_names(card, NAME) or wanted == INT8:
                found = read_network(content, card, NAME, wanted, str(path))
                if not settings.trust:
                    check_graph(found.graph, str(path))
                model = core.read_model(found.graph, openvino.Tensor(np.frombuffer(found.weights, np.uint8)))
            else:
                from nuclix.plugins.model_sources._openvino_pack import converted

                model = converted(path, card, content, trust=settings.trust)
            return OpenVinoQueue(core, model, card, settings)
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO can't run this network: {_last_line(error)}") from error


class OpenVinoQueue:
    """Computes patches, several at a time, each with the same bits whatever else is computed.

    Parameters
    ----------
    core, model : openvino.Core, openvino.Model
        The library, and the network; its shapes are fixed here.
    card : ModelCard
        Of the model.
    settings : ArraySettings
        Precision and threads.

    Attributes
    ----------
    runtime : str
        OpenVINO and its version.
    places : int
        Patches that are computed at the same time.

    Raises
    ------
    ModelError
        If the network's output is not what its card says.
    """

    def __init__(self, core: Any, model: Any, card: ModelCard, settings: ArraySettings) -> None:
        self.runtime = f"{NAME} {installed_version(NAME)}"
        self.places = min(settings.threads, MAX_STREAMS)
        _fix_shape(model, card)
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if settings.precision == BFLOAT16 else "f32",
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": self.places,
            # Otherwise the streams of several processes are bound to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._idle: list[Any] = []
        self._running: deque[_Job] = deque()
        # It takes a tenth of a second, in which the worker loads plugins, opens a slide and finds its tissue.
        pool = ThreadPoolExecutor(1, "nuclix-compile")
        self._compiled = pool.submit(lambda: core.compile_model(_with_rows_of_pixels(model), "CPU", hints))
        pool.shutdown(wait=False)

    def submit(self, patch: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Start to compute an (H, W, 3) patch; return what waits for its (channels, H, W) maps."""
        if not self._idle and not self._running:
            compiled = self._compiled.result()
            # One more than are computed, so that the next patch is there when a thread has finished.
            self._idle = [compiled.create_infer_request() for _ in range(self.places + 1)]
        if not self._idle:
            self._finish(self._running[0])
        job = _Job(self._idle.pop())
        tensor = job.request.input_tensors[0]
        if list(tensor.shape) != [1, *patch.shape]:  # of a network of dynamic shapes
            tensor.shape = [1, *patch.shape]
        tensor.data[0] = patch
        job.request.start_async()
        self._running.append(job)
        return lambda: self._finish(job)

    def _finish(self, job: _Job) -> NDArray[np.float32]:
        """Wait for a job, and give its request back."""
        if job.maps is None:
            self._running.remove(job)
            try:
                job.request.wait()
                job.maps = job.request.output_tensors[0].data[0].astype(np.float32)
            finally:
                self._idle.append(job.request)
        return job.maps


class _Job:
    """A patch that is computed, and later its maps."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.maps: NDArray[np.float32] | None = None


def _fix_shape(model: Any, card: ModelCard) -> None:
    """Give a network the patch's shape, and, if its card allows others, then let height and width be any."""
    size = card.patch.size
    model.reshape([1, 3, size, size])
    want, got = [1, card.channels, size, size], list(model.output(0).shape)
    if got != want:
        raise ModelError(f"model {card.name}: the output's shape is {got}; its card says {want}")
    if card.patch.dynamic:
        model.reshape([1, 3, -1, -1])


def _with_rows_of_pixels(model: Any) -> Any:
    """Return a network that takes (1, size, size, 3) uint8 in place of (1, 3, size, size)."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input(0).tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input(0).model().set_layout(Layout("NCHW"))
    return steps.build()


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1]
