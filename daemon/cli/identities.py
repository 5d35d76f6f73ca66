"""`enrichd identities`: the people, what a person decides about them, and what can be seen and learned of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import Json, configured, print_json, print_table, run_async, writable
from daemon.plural import counted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.config import Config
    from daemon.store.collections import Collections, Document

#: endings of the names of pictures
PICTURES = (".png", ".jpg", ".jpeg")

Who = Annotated[str, typer.Argument(metavar="IDENTITY", help="Id of an identity, or a name that only one has.")]
Others = Annotated[
    list[str], typer.Argument(metavar="OTHER...", help="Ids or names of those that are the same person.")
]
FaceIds = Annotated[list[str], typer.Argument(metavar="FACE...", help="Ids of faces.")]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


#: images that the list of identities names of each
SHOWN_SOURCES = 3


def file_name(source: Any) -> str:
    """How a table shows a source: a path or address by its last part."""
    return str(source).rstrip("/").rpartition("/")[2]


def work(config: "Config", job: "Callable[[Collections], Awaitable[Any]]") -> Any:
    """Runs `job` on the open collections."""
    from daemon.connection import connect

    async def connected() -> Any:
        async with connect(config) as collections:
            return await job(collections)

    return run_async(connected())


def told(entry: Any, as_json: bool, **more: Any) -> None:
    """Prints which decision was made, so that it can be taken back."""
    if as_json:
        print_json({"decision": entry, **more})
        return
    for name, value in more.items():
        print(f"{name}: {value}")
    print(f"done; to take it back: enrichd identities undo {entry}")


def object_ids(texts: list[str]) -> list[Any]:
    """Ids as given on the command line. Raises FaceUnknown for what is none."""
    from bson import ObjectId

    from daemon.decisions import FaceUnknown

    for text in texts:
        if not ObjectId.is_valid(text):
            raise FaceUnknown(f"{text!r} is not an id of a face; `enrichd identities show IDENTITY` lists them.")
    return [ObjectId(text) for text in texts]


@app.command("list")
@configured
def list_identities(
    config: "Config",
    named: Annotated[bool, typer.Option("--named", help="Only those with a name.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Hidden and merged ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """The identities, those with most faces first."""
    from daemon.store.faces import count_waiting
    from daemon.store.identities import some_sources

    async def job(collections: "Collections") -> "tuple[list[Document], int]":
        query: dict[str, Any] = {} if everything else {"state": "active"}
        if named:
            query["name"] = {"$gt": ""}
        fields = dict.fromkeys(
            ("name", "state", "face_count", "image_count", "cover_face", "ignored", "merged_into"), 1
        )
        cursor = collections.identities.find(query, fields).sort([("face_count", -1), ("_id", 1)]).limit(limit)
        found = [document async for document in cursor]
        for document in found:
            document["sources"] = await some_sources(collections, document["_id"], config.images.source, SHOWN_SOURCES)
        return found, await count_waiting(collections)

    found, waiting = work(config, job)
    if as_json:
        print_json(found)
        return
    if not found:
        wait = "waits" if waiting == 1 else "wait"
        print(f"none; {counted(waiting, 'face')} {wait} for the next recluster (`enrichd recluster` does it now)")
        return
    columns = ["id", "name", "faces", "images", "state", "seen on"]
    rows = [
        [d["_id"], d["name"], d["face_count"], d["image_count"], d["state"], ", ".join(map(file_name, d["sources"]))]
        for d in found
    ]
    print_table(None, columns, rows)


@app.command()
@configured
def show(
    config: "Config",
    identity: Who,
    montage: Annotated[Path | None, typer.Option("--montage", help="File for a contact sheet of the faces.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many faces.")] = 100,
    as_json: Json = False,
) -> None:
    """One identity and its faces."""
    from daemon.decisions import find_identity
    from daemon.store.images import sources_of

    writable(montage, PICTURES)

    async def job(collections: "Collections") -> "tuple[Document, list[Document]]":
        entry = await find_identity(collections, identity)
        document = await collections.identities.find_one({"_id": entry.id}, {"exemplars": 0, "centroid": 0})
        cursor = collections.faces.find({"identity": entry.id}, {"embeddings": 0}).sort("_id").limit(limit)
        faces = [face async for face in cursor]
        sources = await sources_of(collections, [face["image"]["_id"] for face in faces], config.images.source)
        return document or {}, [{**face, "source": sources.get(face["image"]["_id"])} for face in faces]

    document, faces = work(config, job)
    if montage:
        from daemon.montage import montage as sheet

        sheet([(face.get("thumbnail") or b"", str(face["image"]["_id"])) for face in faces]).save(montage)
    shown = [{key: value for key, value in face.items() if key != "thumbnail"} for face in faces]
    if as_json:
        print_json({**document, "faces": shown})
        return
    print_table(None, ["", ""], [[key, value] for key, value in document.items()])
    rows = [[f["_id"], f["source"], f["box"], (f["assigned"] or {}).get("by"), f["verdict"]] for f in shown]
    print_table(None, ["face", "source", "box", "assigned by", "verdict"], rows)


@app.command("name")
@configured
def give_name(
    config: "Config",
    identity: Who,
    name: Annotated[str, typer.Argument(help="The name; an empty one takes it away.")],
    as_json: Json = False,
) -> None:
    """Give an identity a name."""
    from daemon import decisions

    async def job(collections: "Collections") -> Any:
        return await decisions.name(collections, await decisions.find_identity(collections, identity), name)

    told(work(config, job), as_json)


@app.command()
@configured
def merge(config: "Config", identity: Who, others: Others, as_json: Json = False) -> None:
    """Several identities are one person: the others go into the first."""
    from daemon import decisions

    async def job(collections: "Collections") -> Any:
        into = await decisions.find_identity(collections, identity)
        rest = [await decisions.find_identity(collections, other) for other in others]
        return await decisions.merge(collections, into, rest)

    told(work(config, job), as_json)


@app.command()
@configured
def split(
    config: "Config",
    identity: Who,
    faces: FaceIds,
    name: Annotated[str | None, typer.Option("--name", help="Name of the new identity.")] = None,
    as_json: Json = False,
) -> None:
    """Some faces of an identity are another person: they become an identity of their own."""
    from daemon import decisions

    async def job(collections: "Collections") -> Any:
        entry = await decisions.find_identity(collections, identity)
        return await decisions.split(
            collections, entry, await decisions.find_faces(collections, object_ids(faces)), name
        )

    new, entry = work(config, job)
    told(entry, as_json, identity=new)


def of_faces(config: "Config", faces: list[str], decide: Any, as_json: bool) -> None:
    """A decision about some faces."""
    from daemon import decisions

    async def job(collections: "Collections") -> Any:
        return await decide(collections, await decisions.find_faces(collections, object_ids(faces)))

    told(work(config, job), as_json)


@app.command("not-this-person")
@configured
def not_this_person(config: "Config", faces: FaceIds, as_json: Json = False) -> None:
    """Faces are not the person that they are said to be."""
    from daemon import decisions

    of_faces(config, faces, decisions.not_this_person, as_json)


@app.command("not-a-face")
@configured
def not_a_face(config: "Config", faces: FaceIds, as_json: Json = False) -> None:
    """These are no faces."""
    from daemon import decisions

    of_faces(config, faces, decisions.not_a_face, as_json)


def of_identity(config: "Config", identity: str, decide: Any, as_json: bool) -> None:
    """A decision about an identity."""
    from daemon import decisions

    async def job(collections: "Collections") -> Any:
        return await decide(collections, await decisions.find_identity(collections, identity))

    told(work(config, job), as_json)


@app.command()
@configured
def ignore(
    config: "Config",
    identity: Annotated[str | None, typer.Argument(metavar="[IDENTITY]", help="Id or name.")] = None,
    face: Annotated[list[str] | None, typer.Option("--face", help="A face of nobody; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """A stranger whom nobody wants to see: an identity, or faces that belong to nobody."""
    from daemon import decisions

    if (identity is None) == (face is None):
        raise typer.BadParameter("give an identity, or faces with --face")
    if face is not None:
        of_faces(config, face, decisions.ignore_faces, as_json)
    elif identity is not None:
        of_identity(config, identity, decisions.ignore, as_json)


@app.command()
@configured
def hide(
    config: "Config",
    identity: Who,
    off: Annotated[bool, typer.Option("--off", help="Bring it back into sight.")] = False,
    as_json: Json = False,
) -> None:
    """Take an identity out of sight; it goes on to collect its faces."""
    from functools import partial

    from daemon import decisions

    of_identity(config, identity, partial(decisions.hide, hidden=not off), as_json)


@app.command()
@configured
def history(
    config: "Config",
    identity: Annotated[str | None, typer.Argument(metavar="[IDENTITY]", help="Id or name.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """What was decided, newest first."""
    from daemon.decisions import find_identity
    from daemon.store import audit

    async def job(collections: "Collections") -> "list[Document]":
        id = (await find_identity(collections, identity)).id if identity else None
        return await audit.history(collections, id, limit)

    found = work(config, job)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            *(d["_id"], f"{d['at']:%Y-%m-%d %H:%M}", what_of(d), len(d["faces"])),
            *(", ".join(map(str, d["identities"])), "yes" if d["undone_at"] else ""),
        ]
        for d in found
    ]
    print_table(None, ["decision", "at", "what", "faces", "identities", "undone"], rows)


def what_of(entry: "Document") -> str:
    """How a table shows a decision: what was done, and the name that it gave, if any."""
    given = [change["after"]["name"] for change in entry["identity_changes"] if "name" in change["after"]]
    names = [f"{name!r}" if name else "no name" for name in given]
    return ": ".join([entry["action"], *names])


@app.command()
@configured
def undo(
    config: "Config",
    decision: Annotated[str, typer.Argument(help="Id of a decision, from `enrichd identities history`.")],
    as_json: Json = False,
) -> None:
    """Take a decision back."""
    from bson import ObjectId

    from daemon import decisions

    if not ObjectId.is_valid(decision):
        raise decisions.DecisionUnknown
    entry = work(config, lambda collections: decisions.undo(collections, ObjectId(decision)))
    if as_json:
        print_json({"undone": entry["_id"], "action": entry["action"]})
    else:
        print(f"undone: {entry['action']}")


@app.command()
@configured
def suggest(
    config: "Config",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many of each kind.")] = 20,
    as_json: Json = False,
) -> None:
    """Likely merges, wrong members and names, best first."""
    from daemon.calibration import Calibrations
    from daemon.suggest import as_documents, suggestions

    calibrations = Calibrations.load(config.identities.calibration)
    found = as_documents(work(config, lambda collections: suggestions(collections, calibrations, limit)))
    if as_json:
        print_json(found)
        return
    if not found:
        print("nothing to suggest")
        return
    rows = [[d["kind"], d["score"], ", ".join(map(str, d["identities"])), d["face"], d["evidence"]] for d in found]  # type: ignore[call-overload]
    print_table(None, ["what", "score", "identities", "face", "evidence"], rows)


@app.command()
@configured
def train(
    config: "Config",
    label: Annotated[str, typer.Option("--label", help="identity, or a field of the identities.")] = "identity",
    min_images: Annotated[int, typer.Option("--min-images", min=2, help="Faces that a label needs.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Which photos are held back to judge by.")] = 0,
    confusion: Annotated[
        Path | None, typer.Option("--confusion", help="File for a picture of what is confused.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Learn to recognise the named people (or another label) in new faces."""
    from daemon.training import train_recognizer

    writable(confusion, PICTURES)
    trained = work(config, lambda collections: train_recognizer(collections, label, min_images, seed))
    if confusion:
        from daemon.people_plot import confusion_picture

        confusion_picture(trained.document()["judged"]["confusion"]).save(confusion)
    if as_json:
        print_json(trained.document())
        return
    document = trained.document()
    pairs = document["judged"].pop("confusion")
    rows = [[key, value] for key, value in {**document, **document.pop("judged")}.items() if key != "judged"]
    print_table(None, ["", ""], rows)
    print_table("confused", ["is", "told", "faces"], [[pair["is"], pair["told"], pair["faces"]] for pair in pairs])


@app.command()
@configured
def plot(
    config: "Config",
    file: Annotated[Path, typer.Argument(help="A .png, or a .html that can be turned.")],
    seed: Annotated[int, typer.Option("--seed", help="Which faces are drawn where there are too many.")] = 0,
) -> None:
    """Draw the faces' embeddings, coloured by identity."""
    import numpy as np

    from daemon.identities import active_model, load
    from daemon.people_plot import PlotInvalid, arrange, draw
    from daemon.store import identities as store

    writable(file, (".png", ".html"))

    async def job(collections: "Collections") -> Any:
        model = await active_model(collections)
        if model is None:
            raise PlotInvalid("There are no faces yet.")
        return await load(collections, model), await store.load(collections)

    loaded, known = work(config, job)
    numbers = {id: number for number, id in enumerate(known)}
    names = [entry.name or str(entry.id)[-6:] for entry in known.values()]
    owner = np.array([numbers.get(identity, -1) for identity in loaded.identities])
    draw(arrange(loaded.faces.vectors, owner, names, seed), file)
    people = counted(len(set(owner[owner >= 0].tolist())), "identity", "identities")
    print(f"{counted(len(owner), 'face')} of {people} drawn into {file}")


@app.command()
@configured
def forget(
    config: "Config",
    identity: Who,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many faces would be erased.")] = False,
    as_json: Json = False,
) -> None:
    """Erase a person for good. This cannot be undone."""
    from daemon import decisions

    if not yes and not dry_run:
        typer.confirm(f"Erase everything known about {identity}, for good?", abort=True)

    async def job(collections: "Collections") -> int:
        entry = await decisions.find_identity(collections, identity)
        if dry_run:
            return len((await decisions.all_of(collections, entry)).faces)
        return await decisions.forget(collections, entry)

    count = work(config, job)
    if as_json:
        print_json({"faces": count, "dry_run": dry_run})
    else:
        print(f"{counted(count, 'face')} {'to be erased' if dry_run else 'erased'}")
