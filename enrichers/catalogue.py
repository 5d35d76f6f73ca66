"""The catalogue of models: which weight file each is, where it is published, under which licence, and how it is run.

The built-in entries are data, in `catalogue.toml`; users add theirs in the configuration (`[models.entries.<name>]`).
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

from enrichers.contract import Weights
from enrichers.errors import EnrichdError, ModelMissing, ModelUnknown, SettingInvalid

#: what a source of each provider must say, beside what it may
PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "package": ("package", "version", "file"),
    "installed": ("module", "file"),
    "file": ("path",),
    "url": ("url",),
    "hub": ("hub", "revision", "file"),
}

RUNTIMES = ("onnx", "tensorflow", "litert", "dlib", "deepface", "none")


#: name of the file in the model cache that remembers the hashes of models that the catalogue does not pin
PINS = "pins.json"


@dataclass(frozen=True, slots=True)
class Source:
    """One place where a weight file is published. Which fields are set depends on `provider` (`PROVIDERS`)."""

    provider: str
    package: str | None = None  #: distribution name on the package index
    version: str | None = None
    module: str | None = None  #: top-level module of an installed package
    file: str | None = (
        None  #: path inside the wheel, the module's folder, the archive behind `url`, or the hub's repository
    )
    path: str | None = None  #: a local file or folder
    url: str | None = None
    hub: str | None = None  #: repository on the Hugging Face hub
    revision: str | None = None  #: commit on the hub
    download_bytes: int | None = None  #: size of what is downloaded (the wheel or archive), where that is not the file

    def __str__(self) -> str:
        if self.provider == "package":
            return f"{self.package} {self.version} ({self.file})"
        if self.provider == "installed":
            return f"installed package {self.module} ({self.file})"
        if self.provider == "hub":
            return f"hub {self.hub}@{self.revision} ({self.file})"
        return str(self.path or self.url)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue: a weight file (or folder), or, without sources, a group of `parts`."""

    name: str
    task: str  #: objects, faces, embedding, tags, similarity, safety, age, gender, emotion, text, caption or labels
    runtime: str = "none"  #: one of RUNTIMES; "none": data that no runtime loads, e.g. labels
    sources: tuple[Source, ...] = ()  #: tried in order
    sha256: str | None = None  #: of the file; None: pinned to what the first pull brings
    bytes: int | None = None  #: size of the file
    licence: str = "unknown"  #: SPDX identifier where there is one
    licence_note: str | None = None
    restricted: bool = False  #: the licence does not allow every use
    form: str | None = None  #: which code prepares its input and reads its output
    options: Mapping[str, Any] = field(default_factory=dict)  #: input size, colour order, tensor names …
    parts: Mapping[str, str] = field(default_factory=dict)  #: role → name of another entry that it cannot do without
    derive: str | None = None  #: "module:function" that makes the file that is run out of the published one
    note: str | None = None  #: what it is good and bad at
    default: bool = False  #: needed by an enricher as it is installed

    @property
    def provider(self) -> str:
        return self.sources[0].provider if self.sources else "parts"

    @classmethod
    def parse(cls, name: str, table: Mapping[str, Any]) -> "Entry":
        """The entry of a TOML table. The source's fields stand in the table itself, further sources under `also`.
        Raises SettingInvalid naming the nearest valid key."""
        where = f"model {name!r}"
        source_keys = {f.name for f in fields(Source)}
        entry_keys = {f.name for f in fields(cls)} - {"name", "sources"}
        for key in table:
            if key not in source_keys | entry_keys | {"also"}:
                raise SettingInvalid(f"{where}: unknown key {key!r}{nearest(key, [*source_keys, *entry_keys])}")
        if "task" not in table:
            raise SettingInvalid(f'{where}: `task` is missing, e.g. task = "objects"')
        if table.get("runtime", "none") not in RUNTIMES:
            wrong = table["runtime"]
            raise SettingInvalid(f"{where}: unknown runtime {wrong!r}{nearest(wrong, RUNTIMES)}")
        sources = []
        if "provider" in table:
            sources.append(_source(where, {key: value for key, value in table.items() if key in source_keys}))
        elif not table.get("parts"):
            raise SettingInvalid(f"{where}: `provider` is missing: one of {', '.join(PROVIDERS)}")
        sources += [_source(where, also) for also in table.get("also", ())]
        return cls(name=name, sources=tuple(sources), **{key: table[key] for key in entry_keys if key in table})


def _source(where: str, table: Mapping[str, Any]) -> Source:
    provider = table.get("provider", "")
    if provider not in PROVIDERS:
        raise SettingInvalid(f"{where}: unknown provider {provider!r}{nearest(provider, PROVIDERS)}")
    if missing := [key for key in PROVIDERS[provider] if not table.get(key)]:
        raise SettingInvalid(f"{where}: a source of provider {provider!r} needs `{missing[0]}`")
    try:
        return Source(**table)
    except TypeError as error:
        raise SettingInvalid(f"{where}: {error}") from None


def nearest(name: str, valid: Sequence[str] | Mapping[str, Any]) -> str:
    """ ", did you mean 'x'?", or the list of what is valid where nothing is near."""
    if near := difflib.get_close_matches(name, list(valid), 1):
        return f"; did you mean {near[0]!r}?"
    return f"; valid are: {', '.join(sorted(valid))}" if valid else ""


class Catalogue:
    """All models that can be named."""

    def __init__(self, entries: Mapping[str, Entry], pins: Path | None = None) -> None:
        """`pins`: a JSON file, name → SHA-256, of models that were pulled without a hash in the catalogue."""
        self._entries = dict(entries)
        self._pins = pins

    @classmethod
    def load(cls, user_entries: Mapping[str, Mapping[str, Any]] | None = None, cache: Path | None = None) -> Self:
        """The built-in entries and the user's, which win where they have the same name. `cache` is the folder of the
        model store, which remembers the hashes of models that no one pinned. Raises SettingInvalid."""
        tables = {**_builtin(), **(user_entries or {})}
        catalogue = cls({name: Entry.parse(name, table) for name, table in tables.items()}, cache and cache / PINS)
        for entry in catalogue:
            for part in entry.parts.values():
                catalogue.entry(part)
        return catalogue

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entry(self, name: str) -> Entry:
        """Raises ModelUnknown naming the nearest model."""
        try:
            return self._entries[name]
        except KeyError:
            raise ModelUnknown(f"no model is called {name!r}{nearest(name, self._entries)}") from None

    def with_parts(self, name: str) -> list[Entry]:
        """The entry and all that it cannot do without, main one first, groups left out; each once."""
        entry = self.entry(name)
        found = [entry] if entry.sources else []
        for part in entry.parts.values():
            found += [e for e in self.with_parts(part) if e not in found]
        return found

    def sha256(self, name: str) -> str | None:
        """The hash that the model's file must have: the catalogue's, else that of the first pull, else None."""
        entry = self.entry(name)
        if entry.sha256:
            return entry.sha256
        if entry.provider == "file" and (path := Path(str(entry.sources[0].path))).exists():
            return hash_path(path)
        if self._pins and self._pins.exists():
            pinned = json.loads(self._pins.read_text()).get(name)
            return str(pinned) if pinned else None
        return None

    def weights(self, name: str) -> tuple[Weights, ...]:
        """What an enricher that uses the model must name as its weights, main file first. Raises ModelUnknown, and
        ModelMissing for a model that is neither pinned nor pulled."""
        found = []
        for entry in self.with_parts(name):
            sha256 = self.sha256(entry.name)
            if sha256 is None:
                raise ModelMissing(f"model {entry.name!r} has not been fetched; run `enrichd models pull {entry.name}`")
            found.append(Weights(entry.name, sha256))
        return tuple(found)


def _builtin() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(resources.files("enrichers").joinpath("catalogue.toml").read_text("utf-8"))


def hash_path(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the sorted relative paths of its files, each followed by the file's hash."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{hash_path(file)}\n".encode())
        return digest.hexdigest()
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise EnrichdError(f"cannot read {path}: {error.strerror}") from error
