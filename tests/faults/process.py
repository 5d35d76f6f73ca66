"""A daemon as a process of its own: `python -m tests.faults.process CONFIG.toml`."""

import asyncio
import faulthandler
import signal
import sys
from pathlib import Path

from daemon import app, config, logs
from enrichers.errors import EnrichdError


def main() -> None:
    faulthandler.register(signal.SIGUSR1)  # kill -USR1 tells where it hangs
    settings = config.load(Path(sys.argv[1]))
    logs.set_up(settings.log)
    try:
        asyncio.run(app.run(settings, yes=True))
    except EnrichdError as error:
        sys.exit(f"enrichd: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
