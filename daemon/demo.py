"""The demo: a server, a daemon and an app, each a process of its own, on real photos."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

from daemon.config import Config, as_toml, effective, load
from daemon.demo_photos import Photo, write_megapixels, write_photos
from daemon.embedded import EmbeddedServer, running
from daemon.logs import READY
from daemon.plural import counted
from enrichers.errors import EnrichdError

#: port of the demo's server where it is free, so that the printed mongosh line stays right
PORT = 27027
#: marks a folder as the demo's, which may be emptied
MARK = ".enrichd-demo"

#: seconds that the daemon may take to load its models, and then to finish the demo's photos
READY_TIMEOUT_S = 240.0
FINISH_TIMEOUT_S = 300.0
#: photos that are inserted one after the other to measure how long an answer takes
LATENCY_PHOTOS = 16
#: seconds between two looks at a document whose latency is measured
LATENCY_POLL_S = 0.02

#: what the report tells of a face
FACE_FIELDS = ("face", "identity", "age", "gender", "emotion")
#: tags and letters of text that the table shows of a photo
SHOWN_TAGS, SHOWN_TEXT = 2, 32

#: the question that the demo ends with
CATS = "{'enrichments.objects.labels': 'cat'}"

Document = dict[str, Any]


class DemoFailed(EnrichdError):
    """The demo did not get to its end."""


@dataclass
class Report:
    """What the demo found, as `--json` prints it."""

    documents: int = 0
    complete: int = 0
    identities: list[Document] = field(default_factory=list)
    images: list[Document] = field(default_factory=list)
    seconds: float = 0.0  #: from the first process started to the last result
    seconds_to_ready: float = 0.0
    seconds_to_complete: float = 0.0  #: from the first insert to the last document complete
    latency_ms: dict[str, float] = field(default_factory=dict)
    data: str = ""
    config: str = ""
    mongosh: str = ""


def run_demo(folder: Path, *, keep: bool, as_json: bool) -> bool:
    """Runs the demo in `folder`; whether every document was completed. Raises DemoFailed and what keeps the server or
    the daemon from starting."""
    folder = folder.absolute()
    _empty(folder)
    photos = write_photos(folder / "photos")
    config = _write_config(folder)
    _pull_weights(folder)
    report = Report(data=str(folder / "data"), config=str(folder / "enrichd.toml"))
    started = time.monotonic()
    server = EmbeddedServer(folder / "data", config.embedded.port)
    with _ending_on_sigterm(), _running(server), _daemon(folder):
        client: MongoClient[Document] = MongoClient(server.uri)
        report.seconds_to_ready = time.monotonic() - started
        report.mongosh = f'mongosh "mongodb://127.0.0.1:{server.port}/{config.mongo.database}"'
        images: Collection[Document] = client[config.mongo.database][config.mongo.collection]
        _insert_and_wait(images, photos, report, quiet=as_json)
        _recluster(folder)
        _look(client[config.mongo.database], config.mongo.collection, report)
        if report.complete == report.documents:
            report.latency_ms = _measure_latency(images, folder)
        report.seconds = time.monotonic() - started
        if as_json:
            print(json.dumps(_rounded(asdict(report)), indent=2, ensure_ascii=False, default=str), flush=True)
        else:
            _print(report)
        if keep:
            print("Server and daemon run until Ctrl-C.", file=sys.stderr)
            while True:
                time.sleep(3600)
    return report.complete == report.documents


def _rounded(values: Document) -> Document:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in values.items()}


def _empty(folder: Path) -> None:
    """Makes the folder, or empties it where an earlier demo made it. Raises DemoFailed for any other folder."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise DemoFailed(f"{folder} is not empty and no earlier demo's; give another --folder.")
        if (uri := running(folder / "data")) is not None:
            raise DemoFailed(f"The demo's server still runs ({uri}): end `enrichd run` or `enrichd demo --keep` first.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _write_config(folder: Path) -> Config:
    """The user's configuration with the demo's database and photos, as a file for going on with it."""
    values = effective(load())
    values["mongo"] |= {"uri": None, "database": "demo", "collection": "images"}
    values["embedded"] = {"data": str(folder / "data"), "port": _port()}
    values["images"] |= {"source": "source", "filter": {}, "roots": [str(folder / "photos")]}
    file = folder / "enrichd.toml"
    file.write_text(as_toml(values) + "\n")
    return load(file, environment={})


def _port() -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pull_weights(folder: Path) -> None:
    """Fetches the weights that are missing, with the command that a user would give. Raises DemoFailed."""
    command = [_enrichd(), "models", "pull", "--config", str(folder / "enrichd.toml")]
    result = subprocess.run(command, stdout=sys.stderr, env=_environment(), check=False)
    if result.returncode:
        raise DemoFailed("The weights could not be fetched.")


def _environment() -> dict[str, str]:
    """The variables for the demo's processes: all settings are in the demo's file."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ENRICHD_")}


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that it takes its processes along."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _running(server: EmbeddedServer) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _daemon(folder: Path) -> Iterator[None]:
    """`enrichd run` as a process that is ready to take images. Raises DemoFailed with the end of its log."""
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [_enrichd(), "run", "--config", str(folder / "enrichd.toml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while READY not in (folder / "daemon.log").read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (folder / "daemon.log").read_text(errors="replace")[-2000:]
                raise DemoFailed(f"The daemon did not get ready; the end of {folder / 'daemon.log'}:\n{tail}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _enrichd() -> str:
    return str(Path(sys.executable).with_name("enrichd"))


def _insert_and_wait(images: Collection[Document], photos: Sequence[Photo], report: Report, *, quiet: bool) -> None:
    """Inserts the photos as any app would, one `insert_one` each, and waits until the daemon is done with them."""
    from rich.console import Console
    from rich.progress import Progress

    started = time.monotonic()
    for photo in photos:
        images.insert_one({"source": photo.file.name, "album": "demo", "copy": photo.copy})
    report.documents = len(photos)
    finished = {"enrichment.state": {"$in": ["complete", "partial", "failed", "unreadable"]}}
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("Looking at the photos", total=len(photos))
        while (done := images.count_documents(finished)) < len(photos):
            progress.update(task, completed=done)
            if time.monotonic() - started > FINISH_TIMEOUT_S:
                break
            time.sleep(0.1)
    report.complete = images.count_documents({"enrichment.state": "complete"})
    report.seconds_to_complete = time.monotonic() - started


def _recluster(folder: Path) -> None:
    command = [_enrichd(), "recluster", "--json", "--config", str(folder / "enrichd.toml")]
    result = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if result.returncode:
        raise DemoFailed(f"`enrichd recluster` failed: {result.stderr.strip()}")


def _look(database: Any, collection: str, report: Report) -> None:
    """Reads the answers back as a user would query them."""
    for document in database[collection].find().sort("source"):
        report.images.append(_image(document))
    for identity in database["identities"].find({"state": "active"}):
        shown = {"enrichments.faces.items.identity": identity["_id"]}
        sources = [document["source"] for document in database[collection].find(shown).sort("source")]
        report.identities.append(
            {"_id": identity["_id"], "name": identity.get("name"), "faces": identity["face_count"], "images": sources}
        )
    report.identities.sort(key=lambda identity: (-identity["faces"], identity["images"]))  # the same at each run


def _image(document: Mapping[str, Any]) -> Document:
    answers = document.get("enrichments", {})
    faces = answers.get("faces", {}).get("items", [])
    return {
        "source": document["source"],
        "state": document.get("enrichment", {}).get("state"),
        "error": document.get("enrichment", {}).get("error"),
        "objects": answers.get("objects", {}).get("counts", {}),
        "faces": [{name: face.get(name) for name in FACE_FIELDS} for face in faces],
        "text": answers.get("text", {}).get("text"),
        "colours": [colour["name"] for colour in answers.get("properties", {}).get("colours", [])],
        "tags": [tag.get("label") for tag in answers.get("tags", {}).get("items", [])],
        "caption": answers.get("caption", {}).get("text"),
        "failed": [name for name, answer in answers.items() if answer.get("run", {}).get("state") == "failed"],
    }


def _measure_latency(images: Collection[Document], folder: Path) -> dict[str, float]:
    """Milliseconds from insert to complete with warm models, one photo of a megapixel at a time; the documents are
    removed again."""
    import numpy as np

    milliseconds = []
    for file in write_megapixels(folder / "photos", LATENCY_PHOTOS):
        started = time.monotonic()
        id = images.insert_one({"source": file.name}).inserted_id
        while not images.find_one({"_id": id, "enrichment.state": {"$exists": True}}, {"_id": 1}):
            if time.monotonic() - started > FINISH_TIMEOUT_S:
                raise DemoFailed(f"{file.name} was not answered within {FINISH_TIMEOUT_S:g} s.")
            time.sleep(LATENCY_POLL_S)
        milliseconds.append(1000 * (time.monotonic() - started))
        images.delete_one({"_id": id})
        file.unlink()
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "photos": LATENCY_PHOTOS}


def _question(report: Report) -> str:
    """A command that asks the database for photos of cats: in mongosh, or in Python where there is no mongosh."""
    if shutil.which("mongosh"):
        return f'{report.mongosh} --eval "db.images.find({CATS}, {{source: 1}})"'
    uri, database = report.mongosh.split('"')[1].rsplit("/", 1)
    question = f"list(MongoClient('{uri}/?directConnection=true').{database}.images.find({CATS}, {{'source': 1}}))"
    return f'{sys.executable} -c "from pymongo import MongoClient; print({question})"'


def _print(report: Report) -> None:
    from rich.console import Console

    from daemon.cli.options import print_table

    people = {identity["_id"]: f"person {chr(ord('A') + n % 26)}" for n, identity in enumerate(report.identities)}
    rows = []
    for image in report.images:
        objects = ", ".join(name if n == 1 else f"{name} x{n}" for name, n in image["objects"].items())
        faces = ", ".join(people.get(face["identity"], "nobody yet") for face in image["faces"])
        text = " ".join((image["text"] or "").split())
        text = text if len(text) <= SHOWN_TEXT else text[:SHOWN_TEXT] + "…"
        rows.append([image["source"], image["state"], objects, faces, ", ".join(image["tags"][:SHOWN_TAGS]), text])
    print_table("What is on the photos", ["photo", "state", "objects", "faces", "tags", "text"], rows)
    rows = []
    for identity in report.identities:
        name = identity["name"] or "no name yet"
        rows.append([people[identity["_id"]], name, identity["faces"], ", ".join(identity["images"])])
    print()
    print_table("Identities", ["", "name", "faces", "photos"], rows)
    latency = f"What went wrong: {_enrichd()} failures --config {report.config}"
    if report.latency_ms:
        p50, p95 = report.latency_ms["p50"], report.latency_ms["p95"]
        latency = f"A photo of one megapixel takes {p50:.0f} ms from insert to complete (p95 {p95:.0f} ms)."
    Console(highlight=False).print(
        f"\n{report.complete} of {counted(report.documents, 'document')} complete "
        f"in {report.seconds_to_complete:.1f} s.\n"
        f"{latency}\n\n"
        f"Data and photos  {Path(report.data).parent}\n"
        f"To go on         {_enrichd()} run --config {report.config}\n"
        f"and beside it    {_question(report)}",
        soft_wrap=True,
        markup=False,
    )
