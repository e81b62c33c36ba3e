"""Brokers on demand, each a process of its own: everything is imported once, and every broker is a fork that is ready at once.

A line of JSON in, `{"folder", "database", "port", "die_at"}`, starts a broker; a line out is its pid. Settings that differ from
those here may follow the folder on the command line, as JSON.
"""

import gc
import importlib
import json
import os
import signal
import sys

import uvicorn

from execbroker import faults
from execbroker.app import create_app
from execbroker.config import Config

PLATFORM = {
    "name": "site",
    "type": "counted",
    "nodes": [{"count": 5, "cores": 4, "memory": 8, "storage": 100}],
    "lasts": "PT1S",
}
SETTINGS = {"platforms": [PLATFORM], "auth": {"mode": "none"}, "offers": {"expires": "PT1M"}}


def serve(folder: str, database: str | None, port: int, die_at: str | None) -> None:
    os.environ["EXECBROKER_DIE_AT"] = die_at or ""
    importlib.reload(faults)
    config = Config(folder=folder, database=database, port=port, **SETTINGS)
    uvicorn.run(create_app(config), host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=5)


def main() -> None:
    SETTINGS.update(json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
    create_app(Config(folder=sys.argv[1], **SETTINGS))
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            try:
                serve(**json.loads(line))
            finally:
                os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    main()
