"""How the daemon logs: readable lines, or one JSON object a line."""

import json
import logging
import sys
from datetime import UTC, datetime

from daemon.config import Log

#: what `enrichd run` says on stderr once it takes images
READY = "enrichd is ready"

#: libraries that log each request or connection at INFO
QUIET = ("httpx", "apscheduler", "pymongo", "PIL", "rapidocr", "RapidOCR")


class JsonLines(logging.Formatter):
    """A record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up(log: Log) -> None:
    """Sends this process's records to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if log.json_lines else text)
    logging.basicConfig(level=log.level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
