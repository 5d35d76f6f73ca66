"""`enrichd evaluate`: measures enrichers on images that the user has labelled."""

import importlib
import importlib.util

import typer

#: the tasks that can be measured; each is a module of `daemon.evaluate` with a function `register(app)`
TASKS = (
    "objects",
    "text",
    "caption",
    "faces",
    "identities",
    "classifier",
    "attributes",
    "safety",
    "search",
    "properties",
    "files",
    "implied_labels",
    "quality",
)

app = typer.Typer(
    name="evaluate",
    help="Measure the enrichers on your own labelled images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

for task in TASKS:
    if importlib.util.find_spec(f"daemon.evaluate.{task}"):
        importlib.import_module(f"daemon.evaluate.{task}").register(app)
