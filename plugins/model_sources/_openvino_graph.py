"""Check that a network of OpenVINO, which may come from anyone, only computes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from nuclix.engine.errors import ModelError

# Operations of OpenVINO's own sets that compute new values from old ones: none reads or writes files, keeps a state
# between passes (ReadValue, Assign) or runs another graph (If, Loop, TensorIterator).
_OPERATIONS = """
Abs Add AvgPool AdaptiveAvgPool AdaptiveMaxPool BatchNormInference Broadcast Clamp Concat Const Convert ConvertLike
Convolution ConvolutionBackpropData DepthToSpace Divide Elu Equal Erf Exp FakeConvert FakeQuantize Floor Gather Gelu
Greater GreaterEqual GroupConvolution GroupConvolutionBackpropData GroupNormalization HardSigmoid HSigmoid HSwish
Interpolate Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr MVN MatMul MaxPool Maximum Minimum Mish Mod
Multiply Negative NormalizeL2 NotEqual PRelu Pad Parameter Power ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape
Result Roll Round Select Selu ShapeOf Sigmoid Sign Slice SoftMax SoftPlus SpaceToDepth Split Sqrt
SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile Transpose Unsqueeze VariadicSplit
"""
_KNOWN = frozenset(_OPERATIONS.lower().split())
_OWN_SET = re.compile(rb"opset\d{1,2}")
_OFFSET = re.compile(r"\d{1,18}")


def check_graph(graph: bytes, where: str) -> None:
    """Refuse a graph with operations that may do more than compute.

    Parameters
    ----------
    graph : bytes
        XML of OpenVINO's intermediate representation.
    where : str
        The model file, for messages.

    Raises
    ------
    ModelError
        If it is no such XML, or an operation is not known; the message names it.
    """
    if b"<!" in graph:  # document types and entities
        raise ModelError(f"{where}: its OpenVINO network holds declarations that no such network needs")
    try:
        layers = ElementTree.fromstring(graph).iter("layer")
        for layer in layers:
            kind, origin = layer.get("type", ""), layer.get("version", "")
            if kind.lower() not in _KNOWN or not _OWN_SET.fullmatch(origin.encode()):
                raise ModelError(
                    f"{where}: its OpenVINO network uses {kind} of {origin or 'no set'}, which may do more than "
                    "compute; use --trust-model if you know where the file is from, or --runtime torch"
                )
            for data in layer.iter("data"):
                if any(not _OFFSET.fullmatch(data.get(key, "0")) for key in ("offset", "size") if kind == "Const"):
                    raise ModelError(f"{where}: its OpenVINO network has constants at places that are no numbers")
    except ElementTree.ParseError as error:
        raise ModelError(f"{where}: its OpenVINO network is damaged: {error}") from error
