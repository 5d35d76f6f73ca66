"""Writes aligned faces as picture files: of a folder's images, or of the faces that are stored in the database."""

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.fetch import Fetcher
from daemon.store import faces as store
from daemon.store.collections import Collections
from daemon.workers import enter_worker
from enrichers.contract import Failure
from enrichers.errors import EnrichdError
from enrichers.image import Image, Pixels

#: images that a worker takes at a time: detection is fastest in small batches
BATCH = 8


class NothingToExport(EnrichdError):
    """There is nothing to export."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How faces are cut out."""

    size: int = 160  #: side in pixels of the square pictures that are written
    margin: float = 0.25  #: share of the face that is shown beyond it on each side
    aligned: bool = True  #: turned and scaled by the landmarks; else the upright square around the box
    every: bool = False  #: every face instead of the largest one


@dataclass(frozen=True, slots=True)
class Mark:
    """A face that is known already, in pixels of the upright file, and where it goes, without the ending."""

    box: tuple[float, ...]
    landmarks: tuple[tuple[float, float], ...]
    target: Path


@dataclass(frozen=True, slots=True)
class Job:
    """One image and where its faces go: `target`, without the ending, to which a number is added where there are
    several. With `marks` no face is looked for."""

    source: Path | bytes
    target: Path
    marks: tuple["Mark", ...] | None = None

    @property
    def name(self) -> str:
        return str(self.source if isinstance(self.source, Path) else self.target)


@dataclass(slots=True)
class Exported:
    """What became of the images."""

    images: int = 0
    faces: int = 0
    without_face: int = 0
    failures: list[tuple[str, Failure]] = field(default_factory=list)

    def add(self, other: "Exported") -> None:
        self.images += other.images
        self.faces += other.faces
        self.without_face += other.without_face
        self.failures += other.failures


def folder_jobs(folder: Path, out: Path) -> list[Job]:
    """Every image file below `folder`; what is written keeps its place among the folders. Raises NothingToExport."""
    from daemon.evaluate.frame import IMAGE_SUFFIXES

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not files:
        raise NothingToExport(f"There is no image in {folder}.")
    names = [file.relative_to(folder).with_suffix("") for file in files]
    taken = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [
        Job(file, out / (file.relative_to(folder) if name in taken else name))
        for file, name in zip(files, names, strict=True)
    ]


async def stored_jobs(config: Config, collections: Collections, out: Path, every: bool) -> AsyncIterator[Job]:
    """The stored faces, a folder for each identity: its name, else its id; `unknown` for faces without one."""
    fetcher = Fetcher(config.images, collections)
    names = {i["_id"]: i.get("name") async for i in collections.identities.find({}, {"name": 1})}
    try:
        async for image, faces in store.shown_by_image(collections):
            document = await collections.images.find_one(dict(image), {config.images.source: 1})
            source = dotted(document, config.images.source) if document else None
            if source is None:
                continue
            largest = sorted(faces, key=lambda face: -face["box"][2] * face["box"][3])
            marks = tuple(
                Mark(
                    tuple(face["box"]),
                    tuple((float(x), float(y)) for x, y in face["landmarks"]),
                    out / folder_name(face.get("identity"), names) / str(face["_id"]),
                )
                for face in (largest if every else largest[:1])
            )
            try:
                yield Job(await fetcher.fetch(source), out, marks)
            except EnrichdError:
                yield Job(Path(str(source)), out, marks)  # fails when it is read, and is reported then
    finally:
        await fetcher.close()


def dotted(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    value: Any = document
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def folder_name(identity: Any, names: Mapping[Any, str | None]) -> str:
    """A name as a folder: what file systems do not allow becomes a dash."""
    if identity is None:
        return "unknown"
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "-", names.get(identity) or "").strip(" .")
    return name or str(identity)


def export(jobs: Iterator[Job], config: Config, cut: Cut, workers: int | None = None) -> Iterator[Exported]:
    """Runs the jobs in `workers` processes (default: one a core), and yields what became of each batch as it is done.
    Raises ModelMissing, ModelUnknown, SettingInvalid before the first."""
    open_finder(config)  # in this process first: what is wrong is said once
    context = get_context("spawn")
    busy: dict[Connection, tuple[BaseProcess, list[Job]]] = {}

    def start(batch: list[Job]) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, config, cut), daemon=True)
        process.start()
        theirs.close()
        ours.send(batch)
        busy[ours] = process, batch

    try:
        while len(busy) < (workers or os.cpu_count() or 1) and (batch := _take(jobs)):
            start(batch)
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                process, batch = busy.pop(connection)
                try:
                    yield connection.recv()
                except EOFError:
                    yield _died(batch)
                    if batch := _take(jobs):
                        start(batch)
                    continue
                batch = _take(jobs)
                connection.send(batch)
                if batch:
                    busy[connection] = process, batch
                else:
                    process.join()
    finally:
        for process, _ in busy.values():
            process.terminate()


def _take(jobs: Iterator[Job]) -> list[Job]:
    return list(islice(jobs, BATCH))


def _died(batch: Sequence[Job]) -> Exported:
    failure = Failure("WorkerDied", "The process that worked on this image and others ended.")
    return Exported(images=len(batch), failures=[(job.name, failure) for job in batch])


def _serve(connection: Connection, config: Config, cut: Cut) -> None:
    """A worker process: answers batches until it gets an empty one."""
    enter_worker()
    worker = _Worker(config, cut)
    while batch := connection.recv():
        connection.send(worker.run(batch))


def open_finder(config: Config) -> Any:
    """The face finder by the settings of the faces enricher, with one thread."""
    from enrichers.catalogue import Catalogue
    from enrichers.face_detectors import open_detector
    from enrichers.face_finder import FaceFinder
    from enrichers.loading import ProcessLoader
    from enrichers.registry import enabled
    from enrichers.weights import ModelStore

    catalogue = Catalogue.load(config.models.entries, config.models.folder)
    (enricher,) = enabled(["faces"], config.enrichers.settings, catalogue)
    settings = enricher.settings
    loader = ProcessLoader(ModelStore(config.models.folder, catalogue, offline=True), config.pipeline.device, 1)
    return FaceFinder(open_detector(settings["detector"], catalogue, loader), settings)


class _Worker:
    """What a worker process keeps between batches."""

    def __init__(self, config: Config, cut: Cut) -> None:
        import cv2

        cv2.setNumThreads(1)
        self.config, self.cut = config, cut
        self.finder = open_finder(config)

    def run(self, jobs: Sequence[Job]) -> Exported:
        result = Exported()
        ready: list[tuple[Job, Image]] = []
        for job in jobs:
            image = self._decoded(job)
            if isinstance(image, Failure):
                result.add(Exported(images=1, failures=[(job.name, image)]))
            else:
                ready.append((job, image))
        pictures, found = self.finder.find([image for job, image in ready if job.marks is None])
        searched = iter(zip(pictures, found, strict=True))
        for job, image in ready:
            faces = self._marked(job, image) if job.marks is not None else self._found(job, *next(searched))
            written = 0
            for pixels, target in faces:
                write_png(pixels, target)
                written += 1
            result.add(Exported(images=1, faces=written, without_face=int(written == 0)))
        return result

    def _decoded(self, job: Job) -> Image | Failure:
        from enrichers.decode import decode

        limits = self.config.images
        max_side = None if job.marks is not None else self.finder.max_side
        try:
            pixels, facts = decode(
                job.source, max_side=max_side, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes
            )
        except (EnrichdError, OSError) as error:
            return Failure.of(error)
        return Image(0, pixels, facts.width, facts.height, facts)

    def _found(self, job: Job, picture: Pixels, faces: Any) -> Iterator[tuple[Pixels, Path]]:
        chosen = len(faces) if self.cut.every else min(1, len(faces))
        for index in range(chosen):
            target = job.target if index == 0 else job.target.with_name(f"{job.target.name}-{index + 1}")
            yield cut_face(picture, faces.boxes[index], faces.landmarks[index], self.cut), target

    def _marked(self, job: Job, image: Image) -> Iterator[tuple[Pixels, Path]]:
        import numpy as np

        scale = np.array([image.pixels.shape[1] / image.width, image.pixels.shape[0] / image.height])
        for mark in job.marks or ():
            box, landmarks = np.array(mark.box) * np.tile(scale, 2), np.array(mark.landmarks) * scale
            yield cut_face(image.pixels, box, landmarks, self.cut), mark.target


def cut_face(picture: Pixels, box: Any, landmarks: Any, cut: Cut) -> Pixels:
    """One face of `picture`, (size, size, 3) uint8 RGB; `box` (4,) and `landmarks` (5, 2) in pixels of it."""
    from enrichers.alignment import PADDING, box_matrix, chip, similarity, template

    if cut.aligned:
        zoom = (1 + 2 * PADDING) / (1 + 2 * cut.margin)
        return chip(picture, similarity(landmarks, template("dlib", cut.size, zoom)), cut.size)
    x, y, width, height = (float(value) for value in box)
    return chip(picture, box_matrix((x, y, width, height), cut.margin, cut.size), cut.size)


def write_png(pixels: Pixels, target: Path) -> None:
    """Writes `target`.png with the folders that it needs; a file that is there is replaced at once or not at all."""
    from PIL import Image as Picture

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    Picture.fromarray(pixels).save(temporary, format="PNG")
    temporary.replace(target.with_name(f"{target.name}.png"))
