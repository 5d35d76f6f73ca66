"""The `faces` enricher: finds faces, and describes each by landmarks, quality, embedding and thumbnail."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from enrichers.alignment import box_matrix, chip, similarity, template
from enrichers.contract import Enricher, Face, Failure, Form, Loader, Result, Vector, Weights
from enrichers.detection import Detections, Detector, largest_first, looked_at_again
from enrichers.embedding import VIEWS, Embedder, Preparation
from enrichers.errors import SettingInvalid
from enrichers.face_attributes import READERS, Attribute
from enrichers.face_detectors import open_detector
from enrichers.face_quality import head_pose, sharpness, value
from enrichers.image import Image, Pixels

#: side in pixels of the aligned chip that sharpness is measured on
QUALITY_CHIP = 112

#: JPEG quality of thumbnails: about 5 kB each
THUMBNAIL_QUALITY = 85

#: share of the box's longer side that a thumbnail shows beyond it, on each side
THUMBNAIL_MARGIN = 0.25


#: pixels of the longest side at which faces are found that fill more than half of the picture
CLOSE_SIDE = 160

#: a picture holds small faces, which deserve a finer look, if it shows any of fewer pixels at the usual size with this
#: score: CenterFace finds 95 % of faces of 11 pixels, nearly all of 15 and hardly any of 7
SMALL_FACE, SMALL_SCORE = 20, 0.2

#: boxes found at two sizes are one face if they overlap by this (intersection over union)
SAME_FACE = 0.3


class Faces(Enricher):
    """One `contract.Face` for each face in the picture, the largest first; the answer itself only counts them."""

    name: ClassVar[str] = "faces"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("opencv-python-headless",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "detector": "centerface",  # catalogue name of the detector
        "embedding": "dlib",  # catalogue name of the embedding model
        "views": "full",  # what a face's vector is the mean of: "plain", "mirror" or "full"
        "age": "age_v1",  # catalogue names; "" leaves the attribute out
        "gender": "gender_v1",
        "emotion": "emotion_fer",
        "max_side": 1920,  # pixels of the picture's longest side that faces are cut from
        "detect_side": 640,  # pixels of the longest side when faces are looked for
        "fine_side": 1280,  # the same where there are small ones, as in photos of groups and crowds
        "candidate_score": 0.3,  # what scores higher in the picture is looked at again
        "min_score": 0.5,  # what scores lower on the second look is no face
        "min_size": 12,  # pixels of the upright file: faces whose shorter side is smaller are left out
        "max_faces": 200,  # of one picture, the largest
        "thumbnail_side": 128,  # pixels
    }

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Raises SettingInvalid for a value that a setting cannot have."""
        super().__init__(settings)
        if settings["views"] not in VIEWS:
            raise SettingInvalid(f"enrichers.faces.views is {settings['views']!r}; valid are: {', '.join(VIEWS)}")

    @property
    def form(self) -> Form:
        return Form(max_side=self.settings["max_side"])

    @property
    def model(self) -> str:
        return f"{self.settings['detector']}+{self.settings['embedding']}"

    def weights(self) -> tuple[Weights, ...]:
        names = [self.settings[key] for key in ("detector", "embedding", *READERS) if self.settings[key]]
        return tuple(weights for name in names for weights in self.catalogue.weights(name))

    def load(self, loader: Loader) -> None:
        self._detector: Detector = open_detector(self.settings["detector"], self.catalogue, loader)
        embedding = self.settings["embedding"]
        self._embedder = Embedder(
            embedding,
            loader.network(embedding),
            Preparation.parse(embedding, self.catalogue.entry(embedding).options),
            VIEWS[self.settings["views"]],
        )
        self._attributes = [
            Attribute(kind, loader.network(name), Preparation.parse(name, self.catalogue.entry(name).options))
            for kind in READERS
            if (name := self.settings[kind])
        ]

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        pictures = [image.fitted(self.settings["max_side"]) for image in images]
        found = self._candidates(pictures)
        found = [self._worth(image, picture, f) for image, picture, f in zip(images, pictures, found, strict=True)]
        if self._detector.looks_again:
            found = looked_at_again(self._detector, pictures, found, self.settings["min_score"])
        found = [largest_first(faces.above(self.settings["min_score"])) for faces in found]
        chips = [
            c for picture, faces in zip(pictures, found, strict=True) for c in self._embedder.chips(picture, faces)
        ]
        vectors = iter(self._embedder.embed(chips))
        attributes = [attribute.describe(pictures, found) for attribute in self._attributes]
        results = []
        for n, (image, picture, faces) in enumerate(zip(images, pictures, found, strict=True)):
            described = tuple(
                self._face(
                    image,
                    picture,
                    faces.chosen(np.array([i])),
                    embeddings={self._embedder.name: next(vectors)},
                    attributes={key: value for rows in attributes for key, value in rows[n][i].items()},
                )
                for i in range(len(faces))
            )
            results.append(Result(answer={"count": len(described)}, faces=described))
        return results

    def _candidates(self, pictures: Sequence[Pixels]) -> list[Detections]:
        """What might be faces: found at the usual size, at a small one (faces that nearly fill the picture), and, where
        the usual size shows small ones, at a large one."""
        score, side, fine = (self.settings[key] for key in ("candidate_score", "detect_side", "fine_side"))
        usual = self._detector.detect(pictures, side, min(score, SMALL_SCORE))
        parts = [[faces.above(score)] for faces in usual]
        again = [
            (
                CLOSE_SIDE,
                [n for n, p in enumerate(pictures) if max(p.shape[:2]) > 2 * CLOSE_SIDE and side > CLOSE_SIDE],
            ),
            (fine, [n for n, p in enumerate(pictures) if _has_small(usual[n], p, side, fine)]),
        ]
        for its_side, chosen in again:
            for n, faces in zip(
                chosen, self._detector.detect([pictures[n] for n in chosen], its_side, score), strict=True
            ):
                parts[n].append(faces)
        return [Detections.joined(some).suppressed(SAME_FACE) for some in parts]

    def _worth(self, image: Image, picture: Pixels, faces: Detections) -> Detections:
        """The faces whose middle is in the picture and that are large enough, the largest first."""
        height, width = picture.shape[:2]
        middles = faces.boxes[:, :2] + faces.boxes[:, 2:] / 2
        inside = ((middles >= 0) & (middles < [width, height])).all(axis=1)
        sizes = faces.boxes[:, 2:].min(axis=1) * (image.width / width)
        kept = faces.chosen(inside & (sizes >= self.settings["min_size"]))
        return largest_first(kept).chosen(np.arange(min(len(kept), self.settings["max_faces"])))

    def _face(
        self,
        image: Image,
        picture: Pixels,
        face: Detections,
        *,
        embeddings: Mapping[str, Vector],
        attributes: Mapping[str, Any],
    ) -> Face:
        """`face` holds one detection in pixels of `picture`."""
        height, width = picture.shape[:2]
        x, y, w, h = (float(v) for v in face.boxes[0])
        landmarks = face.landmarks[0]
        box = image.full_box(x / width, y / height, w / width, h / height)
        pose = head_pose(landmarks)
        aligned = chip(picture, similarity(landmarks, template("dlib", QUALITY_CHIP)), QUALITY_CHIP)
        sharp = sharpness(aligned)
        size = min(box[2], box[3])
        score = float(face.scores[0])
        return Face(
            box=box,
            landmarks=tuple(
                (float(px) / width * image.width, float(py) / height * image.height) for px, py in landmarks
            ),
            score=score,
            quality={
                "sharpness": round(sharp, 4),
                "size": round(size, 1),
                "pose": {"yaw": round(pose.yaw, 1), "pitch": round(pose.pitch, 1), "roll": round(pose.roll, 1)},
                "value": round(value(min(w, h), sharp, pose, score), 4),
            },
            embeddings=embeddings,
            thumbnail=self._thumbnail(picture, (x, y, w, h)),
            attributes=attributes,
        )

    def _thumbnail(self, picture: Pixels, box: tuple[float, float, float, float]) -> bytes:
        side = self.settings["thumbnail_side"]
        cut = chip(picture, box_matrix(box, THUMBNAIL_MARGIN, side), side)
        done, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(cut, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY]
        )
        assert done
        return bytes(jpeg)


def _has_small(faces: Detections, picture: Pixels, side: int, fine: int) -> bool:
    """Whether `faces`, found at `side`, show that looking at `fine` would be worth its time."""
    longest = max(picture.shape[:2])
    if min(longest, fine) < 1.25 * side:
        return False
    return bool((faces.boxes[:, 2:].min(axis=1) * (side / longest) < SMALL_FACE).any())
