"""Says whether the daemon does its work: checks that can fail, and the HTTP endpoint that tells them."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

from daemon.metrics import Metrics

log = logging.getLogger(__name__)

#: seconds without an answer of the change stream after which the tail is stale; the server answers every second
TAIL_STALE_S = 30.0
#: seconds without a renewal after which the lease counts as lost
LEASE_STALE_S = 15.0
#: seconds in which a sweep must read at least one document
SWEEP_STUCK_S = 600.0
#: share of the oplog window that the lag may take
LAG_SHARE = 0.5
#: seconds of lag that are never too many: the history of a server that was just set up is short and yet whole
LAG_FLOOR_S = 60.0
#: seconds that a request may take to arrive
REQUEST_S = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the daemon's health."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Signs:
    """What the parts of the daemon show at one moment; ages in seconds."""

    tail_open: bool
    tail_age_s: float
    lag_s: float
    oplog_window_s: float | None  #: None: not known
    sweeping: bool
    sweep_age_s: float
    lease_age_s: float
    device: str
    worker_device: str | None  #: what the inference worker says that it runs on
    workers_dead: tuple[str, ...]
    tasks_ended: tuple[str, ...]


def examine(signs: Signs) -> list[Check]:
    """The checks, in the order in which an administrator would look."""
    stale = not signs.tail_open or signs.tail_age_s > TAIL_STALE_S
    window = signs.oplog_window_s
    late = window is not None and signs.lag_s > max(LAG_SHARE * window, LAG_FLOOR_S)
    stuck = signs.sweeping and signs.sweep_age_s > SWEEP_STUCK_S
    expired = signs.lease_age_s > LEASE_STALE_S
    elsewhere = signs.worker_device is not None and signs.worker_device != signs.device
    of_window = "an oplog window that is not known" if window is None else f"an oplog window of {window:.0f} s"
    return [
        Check("tasks", not signs.tasks_ended, f"ended: {', '.join(signs.tasks_ended)}" if signs.tasks_ended else "run"),
        Check(
            "tail",
            not stale,
            f"{'open' if signs.tail_open else 'closed'}, the server answered {signs.tail_age_s:.0f} s ago",
        ),
        Check("lag", not late, f"{signs.lag_s:.0f} s of {of_window}"),
        Check("sweep", not stuck, f"moved {signs.sweep_age_s:.0f} s ago" if signs.sweeping else "waits for its time"),
        Check("lease", not expired, f"renewed {signs.lease_age_s:.0f} s ago"),
        Check(
            "device",
            not elsewhere,
            f"{signs.device} was asked for, models run on {signs.worker_device or 'nothing yet'}",
        ),
        Check(
            "workers", not signs.workers_dead, f"dead: {', '.join(signs.workers_dead)}" if signs.workers_dead else "run"
        ),
    ]


class Endpoint:
    """`/livez`: the event loop answers and every task runs. `/readyz`: all checks pass; each is told as JSON, with 503
    where one fails. `/metrics`: Prometheus' text format."""

    def __init__(self, host: str, port: int, signs: Callable[[], Signs], metrics: Metrics) -> None:
        """`port` 0 takes a free one."""
        self._host = host
        self._port = port
        self._signs = signs
        self._metrics = metrics

    async def start(self) -> str:
        """The endpoint's URL."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = (await reader.readline()).decode("latin-1").split()
                while (await reader.readline()).strip():  # the headers, which say nothing to us
                    pass
            status, kind, body = (
                self.answer(*request[:2]) if len(request) > 1 else ("400 Bad Request", "text/plain", "")
            )
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
            await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            log.debug("a request to the health endpoint broke off: %s", error)
        finally:
            writer.close()

    def answer(self, method: str, target: str) -> tuple[str, str, str]:
        """Status, content type and body."""
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain", ""
        match target.partition("?")[0]:
            case "/livez":
                ended = self._signs().tasks_ended
                return ("503 Service Unavailable" if ended else "200 OK"), "text/plain", ", ".join(ended) or "ok\n"
            case "/readyz":
                checks = examine(self._signs())
                ok = all(check.ok for check in checks)
                body = json.dumps({"ready": ok, "checks": [asdict(check) for check in checks]}, indent=1)
                return ("200 OK" if ok else "503 Service Unavailable"), "application/json", body
            case "/metrics":
                return "200 OK", "text/plain; version=0.0.4; charset=utf-8", self._metrics.text()
        return "404 Not Found", "text/plain", "There are /livez, /readyz and /metrics.\n"
