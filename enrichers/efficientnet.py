"""EfficientNet-lite3's forward pass, one for all enrichers that read its answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from enrichers.contract import Loader, Network
from enrichers.image import Image, Pixels, resized

MODEL = "efficientnet_lite3"

#: pixels a side; the picture is squeezed into the square, so that nothing of it is lost
SIDE = 280

#: cells a side, and channels, of the feature map
CELLS, CHANNELS = 9, 1280

#: scale and zero point of the quantised outputs, as the pinned file has them
LOGIT_SCALE, LOGIT_ZERO = 0.08259167522192001, -64
FEATURE_SCALE, FEATURE_ZERO = 0.0235294122248888, -128

#: tensors of the published graph
FEATURES, LOGITS, FLAT_SHAPE = 239, 242, 149


class Seen(NamedTuple):
    """What the network makes of one picture."""

    logits: NDArray[np.float32]  #: (1000,), ImageNet's classes
    features: NDArray[np.int8]  #: (9, 9, 1280), the last feature map after ReLU6, quantised


class EfficientNet:
    """Looks at the pictures of a batch. What it saw is kept with each image for the other enrichers of its group,
    which run on the same images right after, and is dropped with the batch."""

    def __init__(self, loader: Loader) -> None:
        self._network: Network = loader.network(MODEL)

    def look(self, images: Sequence[Image]) -> list[Seen]:
        unseen = [image for image in images if MODEL not in image.shared]
        if unseen:
            for image, seen in zip(unseen, self.look_at([image.pixels for image in unseen]), strict=True):
                image.shared[MODEL] = seen
        return [image.shared[MODEL] for image in images]

    def look_at(self, pictures: Sequence[Pixels]) -> list[Seen]:
        """`pictures`: (h, w, 3) uint8 RGB of any sizes; at least one."""
        outputs = self._network.run({"images": np.stack([squeeze(picture) for picture in pictures])})
        logits = (outputs["logits"].astype(np.float32) - LOGIT_ZERO) * LOGIT_SCALE
        return [Seen(row, features) for row, features in zip(logits, outputs["features"], strict=True)]


def squeeze(picture: Pixels) -> Pixels:
    """(h, w, 3) → (280, 280, 3) uint8 RGB. The graph takes plain bytes: its quantised input spans what ImageNet's
    normalisation makes of 0 to 255, and fed so it tells COCO's objects best."""
    if max(picture.shape[:2]) > SIDE:
        return resized(picture, SIDE, SIDE)
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def activations(features: NDArray[np.int8]) -> NDArray[np.float32]:
    """The feature map in the network's own unit, 0 to 6."""
    return (features.astype(np.float32) - FEATURE_ZERO) * FEATURE_SCALE


def derive(source: Path, target: Path) -> None:
    """Writes the published graph so that it takes batches of any size and gives its logits and its last feature map:
    ends it before the softmax, names both tensors as outputs, and lets its one fixed reshape keep the batch."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    data = source.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    shape = np.array([-1, CHANNELS], dtype="<i4")
    model.buffers[graph.tensors[FLAT_SHAPE].buffer].data = np.frombuffer(shape.tobytes(), np.uint8)
    last = next(number for number, step in enumerate(graph.operators) if LOGITS in step.outputs)
    graph.operators = graph.operators[: last + 1]
    graph.outputs = [LOGITS, FEATURES]
    graph.tensors[LOGITS].name, graph.tensors[FEATURES].name = b"logits", b"features"
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
