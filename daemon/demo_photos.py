"""The demo's photos: real ones that published packages carry, and altered copies of the two people among them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from enrichers.errors import EnrichdError

#: pixels of the photos with which latency is measured
MEGAPIXEL = 1_000_000


class DemoPackageMissing(EnrichdError):
    """The demo's photos are not installed: install enrichd with the extra "demo" (`make demo` does)."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of the demo: its file below the photo folder, and the package that it comes from."""

    file: Path
    package: str
    copy: bool = False  #: an altered copy of another photo


Change = Callable[[Image.Image], Image.Image]


def originals() -> dict[str, tuple[Path, str]]:
    """Name → file and package. Raises DemoPackageMissing."""
    skimage_data = _package("skimage") / "data"
    sklearn_data = _package("sklearn") / "datasets" / "images"
    matplotlib_data = _package("matplotlib") / "mpl-data" / "sample_data"
    found = {
        "astronaut": (skimage_data / "astronaut.png", "scikit-image"),
        "chelsea": (skimage_data / "chelsea.png", "scikit-image"),
        "coffee": (skimage_data / "coffee.png", "scikit-image"),
        "rocket": (skimage_data / "rocket.jpg", "scikit-image"),
        "page": (skimage_data / "page.png", "scikit-image"),
        "grace_hopper": (matplotlib_data / "grace_hopper.jpg", "matplotlib"),
        "china": (sklearn_data / "china.jpg", "scikit-learn"),
        "flower": (sklearn_data / "flower.jpg", "scikit-learn"),
    }
    for name, (file, package) in found.items():
        if not file.is_file():
            raise DemoPackageMissing(f"The installed {package} does not carry {name}; install a version that does.")
    return found


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported: that would take seconds."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise DemoPackageMissing
    return Path(spec.origin).parent


#: the two people: the part of the photo, as shares of its size, that a crop keeps
PEOPLE = {"astronaut": (0.10, 0.0, 0.85, 0.75), "grace_hopper": (0.15, 0.05, 0.95, 0.75)}


def write_photos(folder: Path) -> list[Photo]:
    """Writes the demo's photos into `folder`. Raises DemoPackageMissing."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for name, (file, package) in originals().items():
        copied = folder / file.name
        copied.write_bytes(file.read_bytes())
        photos.append(Photo(copied, package))
        if name in PEOPLE:
            picture = Image.open(file).convert("RGB")
            for suffix, change in _changes(PEOPLE[name]).items():
                altered = folder / f"{name}_{suffix}.jpg"
                change(picture).save(altered, quality=92)
                photos.append(Photo(altered, package, copy=True))
    return photos


def _changes(part: tuple[float, float, float, float]) -> dict[str, Change]:
    return {
        "crop": lambda picture: _crop(picture, part),
        "flip": ImageOps.mirror,
        "dark": lambda picture: _relight(picture, np.array([0.55, 0.55, 0.60]), 0.0),
        "warm": lambda picture: _relight(picture, np.array([1.15, 1.0, 0.75]), 0.0),
        "lamp": lambda picture: _relight(picture, np.array([1.0, 1.0, 1.0]), 0.6),
    }


def _crop(picture: Image.Image, part: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = part
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def _relight(picture: Image.Image, gains: np.ndarray[tuple[int], np.dtype[np.float64]], fall: float) -> Image.Image:
    """Other light: a gain for each of R, G, B, and from left to right a loss of the share `fall`. It acts on linear
    light, as light does."""
    linear = (np.asarray(picture, np.float64) / 255) ** 2.2
    across = np.linspace(1 + fall / 2, 1 - fall / 2, picture.width)[None, :, None]
    relit = np.clip(linear * gains * across, 0, 1) ** (1 / 2.2)
    return Image.fromarray(np.round(relit * 255).astype(np.uint8))


def write_megapixels(folder: Path, count: int) -> Iterator[Path]:
    """`count` photos of one megapixel in turn from the originals, no two of the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [file for file, _ in originals().values()]
    for number in range(count):
        picture = Image.open(files[number % len(files)]).convert("RGB")
        scale = (MEGAPIXEL / (picture.width * picture.height)) ** 0.5
        larger = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
        target = folder / f"megapixel_{number:02}.jpg"
        larger.save(target, quality=92 - number // len(files))
        yield target
