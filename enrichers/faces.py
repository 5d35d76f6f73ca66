"""The `faces` enricher: finds faces, and describes each by landmarks, quality, embedding and thumbnail."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from enrichers.alignment import box_matrix, chip, similarity, template
from enrichers.contract import Enricher, Face, Failure, Form, Loader, Result, Vector, Weights
from enrichers.detection import Detections
from enrichers.embedding import VIEWS, Embedder, Preparation
from enrichers.errors import SettingInvalid
from enrichers.face_attributes import READERS, Attribute
from enrichers.face_detectors import open_detector
from enrichers.face_finder import FaceFinder
from enrichers.face_quality import head_pose, sharpness, value
from enrichers.image import Image, Pixels

#: side in pixels of the aligned chip that sharpness is measured on
QUALITY_CHIP = 112

#: JPEG quality of thumbnails: about 5 kB each
THUMBNAIL_QUALITY = 85

#: share of the box's longer side that a thumbnail shows beyond it, on each side
THUMBNAIL_MARGIN = 0.25


class Faces(Enricher):
    """One `contract.Face` for each face in the picture, the largest first; the answer itself only counts them."""

    name: ClassVar[str] = "faces"
    version: ClassVar[int] = 1
    concurrent: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("opencv-python-headless",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "detector": "centerface",  # catalogue name of the detector
        "embedding": "dlib",  # catalogue name of the embedding model
        "views": "crossed",  # what a face's vector is the mean of: a name of enrichers.embedding.VIEWS
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
        detector = open_detector(self.settings["detector"], self.catalogue, loader)
        self._finder = FaceFinder(detector, self.settings)
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
        pictures, found = self._finder.find(images)
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
