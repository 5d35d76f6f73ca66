"""The command line `enrichd`: what it is made of, and how it tells an error."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup

from daemon.cli import calibrate, documents, search, service, settings
from enrichers.errors import EnrichdError

#: groups of commands with a module of their own, `daemon.cli.<name>`, and their line in the help
GROUPS = {
    "models": "The model store: list, pull and verify weights.",
    "faces": "Faces: find, show and correct them.",
    "identities": "The people that faces belong to: name, merge, split.",
    "evaluate": "Measure the enrichers on your own labelled images.",
}


class LazyGroup(TyperGroup):
    """Imports a group's module only when one of its commands runs, so that `enrichd --help` answers at once."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in GROUPS:
            command = typer.main.get_command(import_module(f"daemon.cli.{name}").app)
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    help="enrichd watches a MongoDB collection of images and writes what is on them into their documents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (service, documents, search, settings, calibrate):
    part.register(app)
for name, line in GROUPS.items():
    if find_spec(f"daemon.cli.{name}"):
        app.add_typer(typer.Typer(help=line), name=name)


def main() -> None:
    """The console command: an error of enrichd's is one message on stderr and exit code 1, not a traceback."""
    try:
        app()
    except EnrichdError as error:
        print(f"enrichd: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        sys.exit(141)
