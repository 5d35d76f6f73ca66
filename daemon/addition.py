"""Which image files a user means, and the sources that stand for them in documents."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enrichers.errors import EnrichdError

#: name endings of the eight formats that enrichd reads; other files of a folder are skipped
ENDINGS = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".webp", ".heic", ".heif", ".hif", ".avif"),
    ]
)


class NothingToAdd(EnrichdError):
    """There is no image to add."""


class OutsideRoots(EnrichdError):
    """The path is outside the folders from which the daemon may read."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files to add, absolute, and how many of the folders' files are no images by their names."""

    files: tuple[Path, ...]
    skipped: int


def find_images(paths: Sequence[Path], recursive: bool) -> Found:
    """The files among `paths`, whatever their names, and the images of the folders among them; hidden ones are left
    out. Raises NothingToAdd for a path that is not there."""
    files: dict[Path, None] = {}
    skipped = 0
    for path in paths:
        if path.is_dir():
            for file in _below(path, recursive):
                if file.suffix.lower() in ENDINGS:
                    files[file.absolute()] = None
                else:
                    skipped += 1
        elif path.exists():
            files[path.absolute()] = None
        else:
            raise NothingToAdd(f"There is no file or folder {path}.")
    return Found(tuple(files), skipped)


def _below(folder: Path, recursive: bool) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)


def source_of(file: Path, roots: Sequence[Path]) -> str:
    """The source that stands for a file, the same however the user wrote its path: relative to the first root where
    it is below that, else absolute. Raises OutsideRoots."""
    resolved = file.resolve()
    resolved_roots = [root.expanduser().resolve() for root in roots]
    if not resolved_roots:
        raise OutsideRoots(
            "No folder is configured from which images may be read: set images.roots, or give "
            f"--root {resolved.parent} to this command and to `enrichd run`."
        )
    if resolved.is_relative_to(resolved_roots[0]):
        return resolved.relative_to(resolved_roots[0]).as_posix()
    if any(resolved.is_relative_to(root) for root in resolved_roots[1:]):
        return resolved.as_posix()
    raise OutsideRoots(f"{file} is outside the folders from which the daemon may read (images.roots).")
