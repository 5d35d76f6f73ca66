"""CenterFace: faces and their five landmarks in one pass, as points on a heat map.

Yuanyuan Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point" (2019). The published ONNX file
has its shapes fixed at 10 × 3 × 32 × 32 and its weights among its inputs; `build` makes a graph of it that takes any
batch and size and whose batch normalisation can be folded away.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enrichers.contract import Network
from enrichers.detection import Detections, Floats, grouped_canvases
from enrichers.errors import ModelCorrupt
from enrichers.image import Pixels, planes

#: pixels of the input for one cell of the heat map
STRIDE = 4

#: names of the published graph's input and outputs → those of the graph that `build` writes
NAMES = {"input.1": "image", "537": "heatmap", "538": "scale", "539": "offset", "540": "landmarks"}

OUTPUTS = ("heatmap", "scale", "offset", "landmarks")

#: two faces of one picture overlap no more than this (CenterFace's own value)
OVERLAP = 0.3

#: canvas pixels in one call: 4 pictures of 640 × 480, so that the activations stay near 200 MB
PIXELS_A_CALL = 4 * 640 * 480


def build(source: Path, target: Path) -> None:
    """Writes `source` with a dynamic batch and picture size to `target`: input `image` (n, 3, h, w) float32 RGB
    0–255, h and w multiples of 32; outputs `heatmap` (n, 1, h/4, w/4), `scale`, `offset` (n, 2, …) and `landmarks`
    (n, 10, …). Raises ModelCorrupt where the file is another graph."""
    import onnx

    model = onnx.load(str(source))
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    for value in [v for v in graph.input if v.name in weights]:
        graph.input.remove(value)
    if {v.name for v in (*graph.input, *graph.output)} != set(NAMES):
        raise ModelCorrupt(f"{source.name} is not the CenterFace graph: its inputs and outputs have other names.")
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        side = ("height", "width") if value.name == "input.1" else ("rows", "columns")
        for dim, name in zip((dims[0], dims[2], dims[3]), ("n", *side), strict=True):
            dim.dim_param = name
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.name = NAMES[value.name]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [NAMES.get(name, name) for name in names]
    target.write_bytes(model.SerializeToString())


def decode(heatmap: Floats, scale: Floats, offset: Floats, landmarks: Floats, min_score: float) -> Detections:
    """The faces of one picture, in pixels of the input. `heatmap` is (rows, columns), `scale` and `offset` (2, rows,
    columns; first the vertical one), `landmarks` (10, rows, columns; vertical and horizontal in turn, in units of the
    box)."""
    rows, columns = np.nonzero(heatmap > min_score)
    if not len(rows):
        return Detections.none()
    height, width = np.exp(scale[:, rows, columns]) * STRIDE
    top = (rows + offset[0, rows, columns] + 0.5) * STRIDE - height / 2
    left = (columns + offset[1, rows, columns] + 0.5) * STRIDE - width / 2
    points = landmarks[:, rows, columns].reshape(5, 2, -1)
    x, y = points[:, 1] * width + left, points[:, 0] * height + top
    found = Detections(
        np.stack([left, top, width, height], axis=1).astype(np.float32),
        heatmap[rows, columns],
        np.stack([x, y], axis=-1).transpose(1, 0, 2).astype(np.float32),
    )
    return found.suppressed(OVERLAP)


class CenterFace:
    """The detector on its network, as a `Detector`."""

    looks_again = True

    def __init__(self, network: Network) -> None:
        self._network = network

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        found = [Detections.none()] * len(pictures)
        for members, canvases, factors in grouped_canvases(pictures, side, PIXELS_A_CALL):
            maps = self._network.run({"image": np.stack([planes(canvas) for canvas in canvases])})
            for row, (index, factor) in enumerate(zip(members, factors, strict=True)):
                heatmap, scale, offset, landmarks = (maps[name][row] for name in OUTPUTS)
                found[index] = decode(heatmap[0], scale, offset, landmarks, min_score).scaled(*factor)
        return found
