from datetime import UTC, datetime
from pathlib import Path

from execbroker.kinds.naming import safe_name
from execbroker.kinds.volume import SimpleVolumeMount
from execbroker.ledger.rows import SessionRow
from execbroker.model.components import AbstractDataResource, UnknownDataResource
from execbroker.model.sessions import ExecutionRequest
from execbroker.model.waist import Job, Mount, Source

STORAGE = "storage"


def folders_of(request: ExecutionRequest) -> dict[str, str]:
    """Where in a session's folder each storage and data resource of an understood request is, by its name."""
    found: dict[str, str] = {}
    for storage in request.storage or []:
        found[storage.name or ""] = _free(f"{STORAGE}/{safe_name(storage.name or '', 'unnamed')}", found)
    for data in request.data or []:
        below = found.get(data.storage or "", STORAGE)
        found[data.name or ""] = _free(f"{below}/{safe_name(data.name or '', 'unnamed')}", found)
    return found


def _free(wish: str, taken: dict[str, str]) -> str:
    return wish if wish not in taken.values() else f"{wish}-{len(taken)}"


def sources_of(request: ExecutionRequest) -> list[tuple[str, Source]]:
    """What is to be fetched for a request: the field that asks for it, and where in the folder it goes.

    Data with nothing to fetch from, which an understood request has none of, is passed over; so are mounts of nothing.
    """
    folders = folders_of(request)
    return [
        (f"data[{index}]", Source(source.url, f"{folders[data.name or '']}/{source.path}", source.size, source.checksum))
        for index, data in enumerate(request.data or [])
        for source in _fetched(data)
    ]


def _fetched(data: AbstractDataResource) -> list[Source]:
    try:
        return [] if isinstance(data, UnknownDataResource) else data.sources()
    except ValueError:
        return []


def mounts_of(request: ExecutionRequest) -> list[Mount]:
    """What an understood request wants to see where."""
    folders = folders_of(request)
    volumes = (request.compute and request.compute.volumes) or []
    return [
        Mount(volume.path or "", folders[volume.resource or ""], volume.mode == "READONLY")
        for volume in volumes
        if isinstance(volume, SimpleVolumeMount) and (volume.resource or "") in folders
    ]


def job_of(row: SessionRow, request: ExecutionRequest, folder: Path) -> Job:
    """What the platform is told of an accepted session."""
    assert row.slot is not None
    assert request.executable is not None
    return Job(
        uuid=row.uuid,
        launch=request.executable.launch(),
        sources=tuple(source for _, source in sources_of(request)),
        mounts=tuple(mounts_of(request)),
        shares=row.slot.shares,
        start=datetime.fromtimestamp(row.slot.start, UTC),
        end=datetime.fromtimestamp(row.slot.end, UTC),
        folder=folder,
        secret=row.secret,
    )
