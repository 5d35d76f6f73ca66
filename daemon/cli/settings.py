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
    """Print the configuration that is in force, secrets masked; an enricher's setting that is unknown is an error."""
    from daemon.config import as_toml, effective
    from enrichers import registry
    from enrichers.catalogue import Catalogue

    catalogue = Catalogue.load(config.models.entries, config.models.folder)
    registry.enabled(config.enrichers.enabled, config.enrichers.settings, catalogue)
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
