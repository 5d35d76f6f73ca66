"""A light enricher in the place of the faces enricher, for tests of what becomes of faces. This folder stands before
the installed enrichers on the path, and the first of a name wins."""

from collections.abc import Sequence
from typing import ClassVar

import standins

from enrichers.contract import Face, Result
from enrichers.image import Image


class Faces(standins.Faces):
    """One face an image; two where the picture is wider than high."""

    name: ClassVar[str] = "faces"

    def _one(self, image: Image) -> Result:
        found = super()._one(image)
        assert isinstance(found, Result)
        faces: Sequence[Face] = found.faces
        if image.width > image.height:
            first = found.faces[0]
            other = {model: vector[::-1].copy() for model, vector in first.embeddings.items()}
            faces = (first, Face((50.0, 0.0, 40.0, 40.0), first.landmarks, 0.9, first.quality, other, first.thumbnail))
        return Result({"count": len(faces)}, tuple(faces))
