"""`enrichd config` and `enrichd version`: what is in force."""

from typing import TYPE_CHECKING

import typer

from daemon.cli.options import Json, configured, print_json

if TYPE_CHECKING:
    from daemon.config import Config


def register(app: typer.Typer) -> None:
    app.command(name="config")(show_config)
    app.command(name="version")(version)


@configured
def show_config(config: "Config", as_json: Json = False) -> None:
    """Print the configuration that is in force, secrets masked."""
    from daemon.config import as_toml, effective

    values = effective(config)
    if as_json:
        print_json(values)
    else:
        print(as_toml(values))


def version(as_json: Json = False) -> None:
    """Print the version."""
    import platform
    from importlib import metadata

    if as_json:
        print_json({"enrichd": metadata.version("enrichd"), "python": platform.python_version()})
    else:
        print(f"enrichd {metadata.version('enrichd')}")
