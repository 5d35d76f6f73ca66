"""A file's ONNX graph and one that was made from it, side by side, to compare what they answer."""

from pathlib import Path
from typing import Any


def sessions(source: Path, made: bytes) -> tuple[Any, Any]:
    """ONNX Runtime's sessions, on the CPU, of the graph in the file `source` and of the serialised graph `made`. Raises
    what ONNX Runtime raises, whose exceptions share no base."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    one, other = (
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for graph in (source.read_bytes(), made)
    )
    return one, other
