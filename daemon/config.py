"""The configuration: `enrichd.toml`, then `ENRICHD_*` variables, then flags, each overriding the one before."""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from enrichers.errors import EnrichdError

FILE_NAME = "enrichd.toml"
PREFIX = "ENRICHD_"
#: variables that say where the configuration is or belong to tests, and are no settings themselves
FILE_VARIABLE, OTHER_VARIABLES = "ENRICHD_CONFIG", "ENRICHD_EVAL_"


class ConfigInvalid(EnrichdError):
    """The configuration is not valid."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mongo(Section):
    uri: str | None = Field(None, description="MongoDB URI; without one, enrichd starts the embedded server")
    database: str = Field("enrichd", description="database that holds the images and enrichd's own collections")
    collection: str = Field("images", description="collection of image documents, the user's")
    timeout_s: float = Field(10.0, gt=0, description="seconds to wait for a server at start")

    @property
    def masked_uri(self) -> str | None:
        """The URI without its secrets, for messages and logs."""
        if self.uri is None:
            return None
        masked = re.sub(r"(?<=://)([^:@/?]*):[^/?]*@", r"\1:***@", self.uri)
        return re.sub(r"(?i)((?:password|token)[=:])[^&,]*", r"\1***", masked)


class Embedded(Section):
    data: Path | None = Field(
        None, description="folder of the embedded server's data; default: in the user's data folder"
    )
    port: int = Field(0, ge=0, le=65535, description="port on the loopback interface; 0 picks a free one")

    @property
    def folder(self) -> Path:
        """Where the data is: the configured folder or the user's data folder of this platform."""
        return self.data or platformdirs.user_data_path("enrichd", appauthor=False) / "server"


class Http(Section):
    enabled: bool = Field(False, description="whether http(s) sources are fetched at all")
    timeout_s: float = Field(20.0, gt=0, description="seconds for one fetch")
    private: bool = Field(False, description="whether addresses of private networks may be fetched")


class Images(Section):
    source: str = Field("source", description="dotted path of the field that says where the image is")
    filter: dict[str, Any] = Field(
        default_factory=dict, description="MongoDB query: only matching documents are enriched"
    )
    roots: list[Path] = Field(default_factory=list, description="folders below which paths may be read")
    gridfs_bucket: str = Field("fs", description="GridFS bucket of sources that are an ObjectId")
    max_pixels: int = Field(
        100_000_000, gt=0, description="images with more pixels are refused before they are decoded"
    )
    max_bytes: int = Field(200_000_000, gt=0, description="files with more bytes are refused")
    http: Http = Field(default_factory=Http)


class Enrichers(Section):
    model_config = ConfigDict(extra="allow", frozen=True)  # one table of settings an enricher, checked by the registry
    __pydantic_extra__: dict[str, dict[str, Any]] = Field(init=False)
    enabled: list[str] | None = Field(None, description="enrichers that are run; default: every installed one")

    def settings(self, name: str) -> dict[str, Any]:
        return dict((self.model_extra or {}).get(name, {}))


class Models(Section):
    cache: Path | None = Field(None, description="folder of the weights; default: in the user's cache folder")
    offline: bool = Field(False, description="never fetch weights, not even by `enrichd models pull`")
    entries: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="the user's own catalogue entries, a table for each model"
    )

    @property
    def folder(self) -> Path:
        """Where the weights are: the configured folder or the user's cache folder of this platform."""
        return self.cache or platformdirs.user_cache_path("enrichd", appauthor=False) / "models"


class Pipeline(Section):
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run")
    gpu_memory_mb: int = Field(
        0, ge=0, description="memory of a GPU that models may take, in MB, beside the driver's own; 0: what there is"
    )
    tensorrt: bool = Field(
        False, description="run models of fixed picture size with TensorRT on a GPU; it first builds them for minutes"
    )
    decode_workers: int = Field(0, ge=0, description="processes that decode images; 0: half the cores, at least one")
    threads: int = Field(0, ge=0, description="cores that inference may use; 0: all")
    in_flight: int = Field(32, ge=1, description="images worked on at a time")
    in_flight_mb: int = Field(1024, ge=64, description="decoded pixels held at a time, in MB")
    queue: int = Field(10_000, ge=10, description="documents waiting in memory; more are left to the sweep")
    batch_wait_ms: float = Field(
        15.0,
        ge=0,
        description="latency that batching may cost: how long an image waits for others that are being decoded; alone, "
        "it never waits",
    )
    task_timeout_s: float = Field(
        120.0, gt=0, description="seconds for one decode or one batch before its worker is replaced"
    )
    task_memory_mb: int = Field(
        8192, ge=512, description="memory of a decode worker, and of the worker that tries a suspect image alone, in MB"
    )
    stop_timeout_s: float = Field(
        20.0, gt=0, description="seconds that images in flight may take to finish after the daemon was told to stop"
    )


class Sweep(Section):
    fast_interval_s: float = Field(60.0, gt=0, description="seconds between sweeps by index")
    verify_interval_h: float = Field(24.0, gt=0, description="hours between sweeps that read every document")
    verify_rate: int = Field(5_000, gt=0, description="documents a second that the verifying sweep reads at most")


class Retry(Section):
    attempts: int = Field(8, ge=1, description="attempts at a transient fault before it counts as failed")
    first_s: float = Field(30.0, gt=0, description="seconds before the first retry")
    max_s: float = Field(3600.0, gt=0, le=86400, description="longest time between retries, a day at most")


class Identities(Section):
    recluster_interval_m: float = Field(
        15.0, gt=0, description="minutes between reclusters; the first one comes as soon as work is quiet"
    )
    min_faces: int = Field(2, ge=1, description="faces that make an identity of their own")
    calibration: Path | None = Field(
        None, description="file of `enrichd calibrate -o`; its embedding models come before the shipped ones"
    )


class Health(Section):
    enabled: bool = Field(True, description="whether the HTTP endpoint /livez, /readyz and /metrics is there")
    host: str = Field("127.0.0.1", description="address that the endpoint listens on; only this machine by default")
    port: int = Field(0, ge=0, le=65535, description="port of the endpoint; 0 picks a free one and logs it")


class Log(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe level that is logged")
    json_lines: bool = Field(False, description="one JSON object a line instead of text")


class Config(Section):
    mongo: Mongo = Field(default_factory=Mongo)
    embedded: Embedded = Field(default_factory=Embedded)
    images: Images = Field(default_factory=Images)
    enrichers: Enrichers = Field(default_factory=Enrichers)
    models: Models = Field(default_factory=Models)
    pipeline: Pipeline = Field(default_factory=Pipeline)
    sweep: Sweep = Field(default_factory=Sweep)
    retry: Retry = Field(default_factory=Retry)
    identities: Identities = Field(default_factory=Identities)
    health: Health = Field(default_factory=Health)
    log: Log = Field(default_factory=Log)


Key = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """One setting that enrichd knows: its dotted key, the type it wants and the default in words."""

    key: Key
    annotation: Any
    default: Any
    description: str

    @property
    def name(self) -> str:
        return ".".join(self.key)

    @property
    def variable(self) -> str:
        return PREFIX + "__".join(self.key).upper()


def settings(section: type[BaseModel] = Config, above: Key = ()) -> Iterator[Setting]:
    """Every setting, in the order of the file."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, (*above, name))
        else:
            default = field.get_default(call_default_factory=True)
            yield Setting((*above, name), field.annotation, default, field.description or "")


def load(
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The effective configuration.

    `file` None: the one that ENRICHD_CONFIG names, else `enrichd.toml` in the working folder or in the user's
    configuration folder, where there is one. `flags`: dotted keys; None counts as not given. A relative path in the
    file is below the file's folder. Raises ConfigInvalid, which names every wrong key and where it stands.
    """
    variables = os.environ if environment is None else environment
    values: dict[Key, Any] = {}
    origins: dict[Key, str] = {}
    found = _find(file, variables)
    layers = [
        _from_file(found) if found else {},
        _from_environment(variables),
        {tuple(name.split(".")): (value, "command line") for name, value in (flags or {}).items() if value is not None},
    ]
    for layer in layers:
        for key, (value, origin) in layer.items():
            for other in [other for other in values if _overlap(key, other)]:
                del values[other]
            values[key], origins[key] = value, origin
    tree: dict[str, Any] = {}
    for key, value in values.items():
        _place(tree, key, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigInvalid("\n".join(_explain(detail, origins) for detail in error.errors())) from None


def _find(file: Path | None, variables: Mapping[str, str]) -> Path | None:
    named = file or (Path(variables[FILE_VARIABLE]) if variables.get(FILE_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise ConfigInvalid(f"There is no configuration file {named}.")
        return named
    candidates = (Path(FILE_NAME), platformdirs.user_config_path("enrichd", appauthor=False) / FILE_NAME)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _from_file(file: Path) -> dict[Key, tuple[Any, str]]:
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{file} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigInvalid(f"{file} cannot be read: {error.strerror}") from None
    known = {setting.key: setting for setting in settings()}
    layer = {}
    for key, value in _leaves(tree, frozenset(known)):
        setting = known.get(key)
        layer[key] = (_absolute(value, setting.annotation, file.parent) if setting else value, str(file))
    return layer


def _leaves(tree: Mapping[str, Any], whole: frozenset[Key], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """The values of nested tables by key; the tables of `whole` are values themselves."""
    for name, value in tree.items():
        key = (*above, name)
        if isinstance(value, dict) and value and key not in whole:
            yield from _leaves(value, whole, key)
        else:
            yield key, value


def _absolute(value: Any, annotation: Any, folder: Path) -> Any:
    """Paths of a file are meant below its folder; any other value stays as it is."""
    if isinstance(value, str) and Path in get_args(annotation):
        return folder.absolute() / Path(value).expanduser()
    if isinstance(value, list) and annotation == list[Path]:
        return [_absolute(item, Path | None, folder) for item in value]
    return value


def _from_environment(variables: Mapping[str, str]) -> dict[Key, tuple[Any, str]]:
    by_name: dict[str, Setting] = {}
    for setting in settings():
        by_name[setting.variable] = setting
        by_name[PREFIX + "_".join(setting.key).upper()] = setting
    free = tuple(
        PREFIX + name.upper() + "__" for name, field in Config.model_fields.items() if _is_open(field.annotation)
    )
    layer: dict[Key, tuple[Any, str]] = {}
    for name, text in variables.items():
        if not name.startswith(PREFIX) or not text or name == FILE_VARIABLE or name.startswith(OTHER_VARIABLES):
            continue
        if name in by_name:
            layer[by_name[name].key] = (_parse(text, by_name[name].annotation, name), name)
        elif name.startswith(free) and name.count("__") >= 2:
            layer[tuple(name.removeprefix(PREFIX).lower().split("__"))] = (_toml_value(text), name)
        else:
            near = _nearest(name, [setting.variable for setting in settings()])
            raise ConfigInvalid(f"The variable {name} is no setting{near}")
    return layer


def parse_assignment(text: str) -> tuple[str, Any]:
    """The key and the value of a flag `KEY=VALUE`. Raises ConfigInvalid."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigInvalid(f"{text!r} is no KEY=VALUE.")
    known = {setting.name: setting for setting in settings()}
    if name in known:
        return name, _parse(value, known[name].annotation, name)
    return name, _toml_value(value)


def _is_open(annotation: Any) -> bool:
    return (
        isinstance(annotation, type) and issubclass(annotation, Section) and annotation.model_config["extra"] == "allow"
    )


def _parse(text: str, annotation: Any, name: str) -> Any:
    """A variable's text as the value that a setting of type `annotation` wants; lists may be separated by commas."""
    kinds = {get_origin(kind) or kind for kind in (annotation, *get_args(annotation))}
    if not kinds & {list, dict}:
        return text
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigInvalid(f"{name} is not valid JSON: {error}") from None
    return [part.strip() for part in text.split(",") if part.strip()] if list in kinds else text


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _overlap(one: Key, other: Key) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _place(tree: dict[str, Any], key: Key, value: Any) -> None:
    for name in key[:-1]:
        tree = tree.setdefault(name, {})
    tree[key[-1]] = value


def _explain(detail: ErrorDetails, origins: Mapping[Key, str]) -> str:
    location = tuple(str(part) for part in detail["loc"])
    origin = next((where for key, where in origins.items() if _overlap(key, location)), "configuration")
    name = ".".join(location)
    names = [setting.name for setting in settings()]
    if detail["type"] == "extra_forbidden" or (detail["type"] == "dict_type" and name not in names):
        sections = {name.rpartition(".")[0] for name in names}
        return f"{origin}: {name} is no setting{_nearest(name, [*names, *sections])}"
    return f"{origin}: {name}: {detail['msg']}"


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; the sections are {', '.join(Config.model_fields)}."


def effective(config: Config) -> dict[str, Any]:
    """The configuration as plain values, its secrets masked."""
    values = config.model_dump(mode="json")
    values["mongo"]["uri"] = config.mongo.masked_uri
    return values


def as_toml(values: Mapping[str, Any], above: Key = ()) -> str:
    """Nested values as TOML; a value that is not set becomes a comment."""
    plain = {name: value for name, value in values.items() if not _is_table(value)}
    lines = [
        f"{name} = {_toml(value)}" if value is not None else f"# {name} is not set" for name, value in plain.items()
    ]
    if above and lines:
        lines.insert(0, f"[{'.'.join(above)}]")
    tables = [as_toml(value, (*above, name)) for name, value in values.items() if _is_table(value)]
    return "\n\n".join(["\n".join(lines), *tables] if lines else tables)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in value)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items() if item is not None) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
