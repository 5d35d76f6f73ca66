"""Light enrichers for tests of the daemon, registered as a stranger's would be. What they do depends on the picture's
colour, so that a test makes an image crash, hang or fail by painting it."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing import current_process
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from enrichers.contract import Enricher, Face, Failure, Form, Loader, Result
from enrichers.errors import EnricherFailed, OutOfMemory
from enrichers.image import Image

CRASHES, HANGS, RAISES, FAILS, FLAKY = (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0), (0, 255, 255)
EATS = (255, 0, 255)  #: all the memory there is, when it is tried alone


def colour(image: Image) -> tuple[int, int, int]:
    """The picture's colour where it is painted plainly, as PNG keeps it."""
    red, green, blue = image.pixels[0, 0]
    return int(red), int(green), int(blue)


class Standin(Enricher):
    """Answers with the mean colour; each image it works on is a line in the file `log`."""

    name = "standin"
    version = 1
    defaults: ClassVar[Mapping[str, Any]] = {"log": "", "salt": "", "ms": 0.0, "size": 0, "fits": 0}

    @property
    def form(self) -> Form:
        return Form(64)

    @property
    def max_batch(self) -> int:
        return 16

    def load(self, loader: Loader) -> None:
        self.device = loader.device

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        self._note(images)
        if 0 < self.settings["fits"] < len(images):
            raise OutOfMemory
        time.sleep(self.settings["ms"] / 1000 * len(images))
        return [self._one(image) for image in images]

    def _note(self, images: Sequence[Image]) -> None:
        if self.settings["log"]:
            with Path(self.settings["log"]).open("a") as log:
                log.writelines(f"{self.name} {image.facts.sha256} {len(images)} {os.getpid()}\n" for image in images)

    def _one(self, image: Image) -> Result | Failure:
        match colour(image):
            case c if c == CRASHES:
                signal.raise_signal(signal.SIGSEGV)
            case c if c == EATS:
                self._eat()
            case c if c == HANGS:
                time.sleep(3600)
            case c if c == RAISES:
                raise EnricherFailed("this picture is red")
            case c if c == FAILS:
                return Failure("Yellow", "this picture is yellow")
            case c if c == FLAKY:
                return Failure("Cyan", "this picture is cyan", transient=True)
        mean = image.pixels.reshape(-1, 3).mean(axis=0)
        padding = {"padding": "x" * self.settings["size"]} if self.settings["size"] else {}
        return Result({"mean": [round(float(v), 1) for v in mean], **padding})

    def _eat(self) -> None:
        if current_process().name != "enrichd-inference-alone":
            signal.raise_signal(signal.SIGSEGV)
        eaten = []
        while len(eaten) < 40:  # 2 GB, far beyond what the test allows
            eaten.append(np.ones(50 << 20, np.uint8))
            time.sleep(0.05)


class Follower(Standin):
    """Builds on the stand-in's answer."""

    name = "follower"
    version = 1
    requires = ("standin",)

    def _one(self, image: Image) -> Result | Failure:
        return Result({"brightness": sum(image.results["standin"]["mean"]) / 3})


class Faces(Standin):
    """Finds one face an image, whose embedding is the colour."""

    name = "facer"

    def _one(self, image: Image) -> Result | Failure:
        vector = np.zeros(128, np.float32)
        vector[:3] = image.pixels.reshape(-1, 3).mean(axis=0) / 255
        points = ((10.0, 10.0), (30.0, 10.0), (20.0, 20.0), (12.0, 30.0), (28.0, 30.0))
        quality = {"sharpness": 1.0, "size": 40.0, "pose": 0.0, "value": 1.0}
        face = Face((0.0, 0.0, 40.0, 40.0), points, 0.99, quality, {"dlib": vector}, b"\xff\xd8\xff\xd9")
        return Result({"count": 1}, (face,))
