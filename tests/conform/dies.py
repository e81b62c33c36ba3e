"""`dies.py SITE ROOT UUID=SECONDS…`: brokers that call `start` and are dead so many seconds later."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from uuid import UUID

from sites import SITES


async def start_and_die(site_name: str, root: Path, uuid: UUID, seconds: float) -> None:
    site = SITES[site_name](root)
    job = site.brief(uuid=uuid)
    platform = site.platform()
    await platform.capacity()
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))  # whose signal nobody handles: the kernel ends us, wherever we are
    await platform.start(job)
    os.kill(os.getpid(), signal.SIGKILL)


def main(site: str, root: str, *deaths: str) -> None:
    for death in deaths:
        uuid, _, seconds = death.partition("=")
        child = os.fork()
        if not child:
            asyncio.run(start_and_die(site, Path(root), UUID(uuid), float(seconds)))
        _, end = os.waitpid(child, 0)
        assert os.WIFSIGNALED(end), "it lived"


if __name__ == "__main__":
    main(*sys.argv[1:])
