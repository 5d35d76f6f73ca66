"""YuNet: a small face detector with five landmarks, on a grid of three strides.

Wei Wu, Hanyang Peng, Shiqi Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20
(2023); decoding as in OpenCV's `FaceDetectorYN`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Network
from enrichers.detection import Detections, grouped_canvases
from enrichers.image import Pixels

STRIDES = (8, 16, 32)

#: two faces of one picture overlap no more than this (OpenCV's value)
OVERLAP = 0.3

#: canvas pixels in one call
PIXELS_A_CALL = 4 * 640 * 480


def decode(outputs: Mapping[str, NDArray[np.floating]], row: int, columns: int, min_score: float) -> Detections:
    """The faces of picture `row` of a batch, in pixels of the canvas, which is `columns` pixels wide. `outputs` are the
    graph's: for each stride s `cls_s`, `obj_s` (n, cells, 1), `bbox_s` (n, cells, 4) and `kps_s` (n, cells, 10)."""
    parts = []
    for stride in STRIDES:
        cls, obj, box, points = (outputs[f"{kind}_{stride}"][row] for kind in ("cls", "obj", "bbox", "kps"))
        scores = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        (cells,) = np.nonzero(scores > min_score)
        corner = np.stack([cells % (columns // stride), cells // (columns // stride)], axis=1).astype(np.float32)
        middles = (corner + box[cells, :2]) * stride
        sizes = np.exp(box[cells, 2:]) * stride
        landmarks = (points[cells].reshape(-1, 5, 2) + corner[:, None]) * stride
        boxes = np.concatenate([middles - sizes / 2, sizes], axis=1)
        parts.append(Detections(boxes, scores[cells], landmarks.astype(np.float32)))
    return Detections.joined(parts).suppressed(OVERLAP)


class YuNet:
    """The detector on its network, as a `Detector`. The graph's input is BGR 0–255."""

    looks_again = True

    def __init__(self, network: Network, options: Mapping[str, Any]) -> None:
        """`options` of the catalogue entry: `size`, where the graph takes one picture of that many pixels squared."""
        self._network = network
        self._size: int | None = options.get("size")

    def detect(self, pictures: Sequence[Pixels], side: int, min_score: float) -> list[Detections]:
        found = [Detections.none()] * len(pictures)
        pixels = PIXELS_A_CALL if self._size is None else 1
        for members, canvases, factors in grouped_canvases(pictures, min(side, self._size or side), pixels):
            if self._size is not None:
                padded = np.zeros((1, self._size, self._size, 3), np.uint8)
                padded[:, : canvases.shape[1], : canvases.shape[2]] = canvases
                canvases = padded
            inputs = np.ascontiguousarray(canvases[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
            outputs = self._network.run({"input": inputs})
            for row, (index, factor) in enumerate(zip(members, factors, strict=True)):
                found[index] = decode(outputs, row, canvases.shape[2], min_score).scaled(*factor)
        return found
