import asyncio
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from execbroker.cli.following import follow_to_end
from execbroker.cli.offers import print_answer, uuid_of
from execbroker.cli.tables import console, messages_of, phase_text, print_messages
from execbroker.client import AsyncClient, ClientError
from execbroker.model.phases import HOLDING, Phase
from execbroker.model.registry import published
from execbroker.model.sessions import ScheduledExecutionSession
from execbroker.places import data_folder

if TYPE_CHECKING:
    from execbroker.config import Config

NOTEBOOK, TABLE = "hubble-diagram.ipynb", "supernovae.csv"
EXECUTED, PLOT = "hubble-diagram-executed.ipynb", "hubble-diagram.png"
RESULTS = {EXECUTED: f"home/{EXECUTED}", PLOT: f"storage/results/{PLOT}"}
TAIL = 20
PATIENCE = 15


def show_demo(folder: Path | None = None) -> int:
    """Run the bundled notebook on a broker of its own, before the eyes of a person; the exit code. Raises StartupError."""
    from execbroker.cli.serving import set_up_logs

    folder = folder or data_folder() / "demo"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "log").open("a") as log, as_file(files(__package__)) as bundle:
        set_up_logs(log)
        return asyncio.run(_demo(folder, bundle, console()))


async def _demo(folder: Path, bundle: Path, out: Console) -> int:
    from execbroker.cli.serving import listening

    async with listening(_settings(folder, bundle)) as url, AsyncClient(url, folder=folder) as client:
        out.print(f"A broker of its own listens on {url}; its data is in {folder}")
        out.print(f"\nWhen can {NOTEBOOK} run, for 10 minutes, on 1 core with 1 GiB?\n")
        await _clear(client, bundle)
        answer = await client.ask(request_for(bundle))
        print_answer(out, answer)
        if not answer.offers:
            return 1
        session = await _run(client, uuid_of(answer.offers[0]), out)
        return await _hand_over(client, session, folder / "results", out)


def _settings(folder: Path, bundle: Path) -> "Config":
    """The embedded defaults, and leave to read what is bundled."""
    from execbroker.config import load

    return load(folder=folder, host="127.0.0.1", port=0, data={"folders": [bundle]})


def request_for(bundle: Path) -> dict[str, Any]:
    """The bundled notebook, its table as a data resource, and a storage for the plot."""
    return {
        "executable": {
            "kind": published("executable", "jupyter-notebook"),
            "meta": {"name": "hubble-diagram"},
            "location": (bundle / NOTEBOOK).as_uri(),
            "mode": "batch",
            "requirements": ["numpy", "matplotlib"],
        },
        "compute": {
            "kind": published("compute", "simple-compute-resource"),
            "cores": {"min": 1},
            "memory": {"min": 1},
            "volumes": [_mount("data", "table", "READONLY"), _mount("results", "results", "READWRITE")],
        },
        "storage": [
            {"kind": published("storage", "simple-storage-resource"), "meta": {"name": "results"}, "size": {"min": 1, "max": 1}}
        ],
        "data": [
            {
                "kind": published("data", "simple-data-resource"),
                "meta": {"name": "table"},
                "location": (bundle / TABLE).as_uri(),
            }
        ],
        "schedule": {"requested": {"duration": "PT10M"}},
    }


def _mount(path: str, resource: str, mode: str) -> dict[str, str]:
    return {"kind": published("volume", "simple-volume-mount"), "path": path, "resource": resource, "mode": mode}


async def _run(client: AsyncClient, uuid: str, out: Console) -> ScheduledExecutionSession:
    out.print(f"\nTaking the first: {uuid}\n")
    await client.accept(uuid)
    try:
        return await follow_to_end(client, uuid, out)
    except asyncio.CancelledError:
        await _end(client, await client.session(uuid))
        raise


async def _clear(client: AsyncClient, bundle: Path) -> None:
    """End what an interrupted demo left: its hold on this machine would make the next one wait."""
    for session in await client.sessions(sorted(HOLDING)):
        if getattr(session.executable, "location", None) == (bundle / NOTEBOOK).as_uri():
            await _end(client, session)


async def _end(client: AsyncClient, session: ScheduledExecutionSession) -> None:
    """Give up a session, and wait until it holds nothing any more."""
    uuid = uuid_of(session)
    with suppress(ClientError):  # it may have ended by itself
        await (client.reject if session.phase is Phase.OFFERED else client.cancel)(uuid)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            async for _ in client.follow(uuid):
                pass


async def _hand_over(client: AsyncClient, session: ScheduledExecutionSession, folder: Path, out: Console) -> int:
    """The results where they stay, or what went wrong; the exit code."""
    uuid = uuid_of(session)
    left = {file.path for file in await client.files(uuid)}
    if session.phase is not Phase.COMPLETED or not left.issuperset(RESULTS.values()):
        await _explain(client, session, out)
        return 1
    out.print(Text("\nIt is ").append_text(phase_text(session.phase)).append(". The executed notebook and the plot:"))
    for name, path in RESULTS.items():
        out.print(str(await client.download(uuid, path, folder / name)))
    return 0


async def _explain(client: AsyncClient, session: ScheduledExecutionSession, out: Console) -> None:
    out.print(Text("\nIt did not work: ").append_text(phase_text(session.phase)))
    print_messages(out, messages_of(session), times=True)
    for line in (await client.output(uuid_of(session), "stderr")).decode(errors="replace").splitlines()[-TAIL:]:
        out.print(Text(line))
