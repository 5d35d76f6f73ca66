"""The configuration: `enrichd.toml`, then `ENRICHD_*` variables, then flags, each overriding the one before."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enrichers.errors import EnrichdError

FILE_NAME = "enrichd.toml"


class ConfigInvalid(EnrichdError):
    """The configuration is not valid."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mongo(Section):
    uri: str | None = Field(None, description="MongoDB URI; without one, enrichd starts the embedded server")
    database: str = Field("enrichd", description="database that holds the images and enrichd's own collections")
    collection: str = Field("images", description="collection of image documents, the user's")
    timeout_s: float = Field(10.0, gt=0, description="seconds to wait for a server at start")


class Embedded(Section):
    data: Path | None = Field(None, description="folder of the embedded server's data; default: in the user's data folder")
    port: int = Field(0, ge=0, le=65535, description="port on the loopback interface; 0 picks a free one")


class Http(Section):
    enabled: bool = Field(False, description="whether http(s) sources are fetched at all")
    timeout_s: float = Field(20.0, gt=0, description="seconds for one fetch")
    private: bool = Field(False, description="whether addresses of private networks may be fetched")


class Images(Section):
    source: str = Field("source", description="dotted path of the field that says where the image is")
    filter: dict[str, Any] = Field(default_factory=dict, description="MongoDB query: only matching documents are enriched")
    roots: list[Path] = Field(default_factory=list, description="folders below which paths may be read")
    gridfs_bucket: str = Field("fs", description="GridFS bucket of sources that are an ObjectId")
    max_pixels: int = Field(100_000_000, gt=0, description="images with more pixels are refused before they are decoded")
    max_bytes: int = Field(200_000_000, gt=0, description="files with more bytes are refused")
    http: Http = Field(default_factory=Http)


class Enrichers(Section):
    model_config = ConfigDict(extra="allow", frozen=True)  # one table of settings an enricher, checked by the registry
    enabled: list[str] | None = Field(None, description="enrichers that are run; default: every installed one")

    def settings(self, name: str) -> dict[str, Any]:
        return dict((self.model_extra or {}).get(name, {}))


class Models(Section):
    cache: Path | None = Field(None, description="folder of the weights; default: in the user's cache folder")
    offline: bool = Field(False, description="never fetch weights, not even by `enrichd models pull`")


class Pipeline(Section):
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run")
    decode_workers: int = Field(0, ge=0, description="processes that decode images; 0: half the cores, at least one")
    threads: int = Field(0, ge=0, description="cores that inference may use; 0: all")
    in_flight: int = Field(32, ge=1, description="images worked on at a time")
    in_flight_mb: int = Field(1024, ge=64, description="decoded pixels held at a time, in MB")
    queue: int = Field(10_000, ge=10, description="documents waiting in memory; more are left to the sweep")
    batch_wait_ms: float = Field(15.0, ge=0, description="how long an image waits for companions in its batch")
    task_timeout_s: float = Field(120.0, gt=0, description="seconds for one decode or one batch before its worker is replaced")


class Sweep(Section):
    fast_interval_s: float = Field(60.0, gt=0, description="seconds between sweeps by index")
    verify_interval_h: float = Field(24.0, gt=0, description="hours between sweeps that read every document")
    verify_rate: int = Field(5_000, gt=0, description="documents a second that the verifying sweep reads at most")


class Retry(Section):
    attempts: int = Field(8, ge=1, description="attempts at a transient fault before it counts as failed")
    first_s: float = Field(30.0, gt=0, description="seconds before the first retry")
    max_s: float = Field(3600.0, gt=0, description="longest time between retries")


class Identities(Section):
    recluster_interval_m: float = Field(15.0, gt=0, description="minutes between reclusters")
    min_faces: int = Field(2, ge=1, description="faces that make an identity of their own")


class Log(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
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
    log: Log = Field(default_factory=Log)


