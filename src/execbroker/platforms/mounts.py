import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from execbroker.errors import PlatformFailure
from execbroker.model.messages import MessageItem, reason
from execbroker.model.waist import Job, Mount
from execbroker.platforms.sandbox import HOME, may_cover
from execbroker.staging.disk import open_folder

FIELD = "compute.volumes"


def target(mount: Mount) -> str:
    """Where it is seen, in its shortest form: absolute, or relative to the session's home."""
    if not mount.path.startswith("/"):
        return os.path.normpath(mount.path)
    absolute = "/" + os.path.normpath(mount.path).lstrip("/")
    return absolute.removeprefix(f"{HOME}/")


def reasons_against_mounts(mounts: Iterable[Mount], no_sandbox: str | None) -> list[MessageItem]:
    """Why these cannot be mounted; `no_sandbox` says why there is none, where there is none."""
    mounts = list(mounts)
    against = [found for mount in mounts if (found := _against(mount, no_sandbox))]
    places = [PurePosixPath(path) for mount in mounts if (path := target(mount)) != "."]
    for place in places:
        if any(other in place.parents for other in places):
            template = "the mount at {mount} lies within another one; give it a place of its own"
            against.append(reason("nested-mount", FIELD, template, mount=place))
    return against


def _against(mount: Mount, no_sandbox: str | None) -> MessageItem | None:
    path = target(mount)
    if "\0" in path or path == "." or path.startswith(".."):
        template = "nothing can be mounted at {mount}: a path below the session's home, such as data, is needed"
        return reason("mount-path", FIELD, template, mount=repr(mount.path))
    if mount.path.startswith("/") and no_sandbox:
        template = "nothing can be mounted at the absolute path {mount} here, because {why}; a relative one such as {value} can"
        return reason(
            "absolute-mount", FIELD, template, mount=mount.path, why=no_sandbox, value=PurePosixPath(path).name or "data"
        )
    if path.startswith("/") and not may_cover(path):
        template = "nothing can be mounted at {mount}: it would cover a part of the system that programs need"
        return reason("system-mount", FIELD, template, mount=mount.path)
    return None


def place(job: Job, boxed: bool) -> list[tuple[Path, str, bool]]:
    """Make room for the job's mounts in its home; what bubblewrap has to bind where, and whether read-only.

    Without bubblewrap they are links. Raises PlatformFailure where something else is in the way.
    """
    os.close(open_folder(job.folder, "home"))
    bound = []
    for mount in job.mounts:
        source, path = job.folder / mount.source, target(mount)
        if not source.exists():
            os.close(open_folder(job.folder, *PurePosixPath(mount.source).parts))
        if source.resolve() != job.folder.resolve() / mount.source:
            raise PlatformFailure(f"{mount.source} cannot be mounted: a link leads out of it")
        if not path.startswith("/"):
            _make(job.folder / "home", PurePosixPath(path), source, boxed)
        bound.append((source, path, mount.readonly))
    return bound if boxed else []


def _make(home: Path, path: PurePosixPath, source: Path, boxed: bool) -> None:
    try:
        parent = open_folder(home, *path.parent.parts)
    except OSError as error:
        raise PlatformFailure(f"{path} cannot be mounted: {error.strerror}: {path.parent}") from error
    try:
        if not boxed:
            os.symlink(os.path.relpath(source, home / path.parent), path.name, dir_fd=parent)
        elif source.is_dir():
            os.mkdir(path.name, 0o700, dir_fd=parent)
        else:
            os.close(os.open(path.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=parent))
    except FileExistsError:
        if not _is_ours(path.name, parent, source, boxed):
            raise PlatformFailure(f"{path} cannot be mounted: a file of the session is there already") from None
    finally:
        os.close(parent)


def _is_ours(name: str, parent: int, source: Path, boxed: bool) -> bool:
    mode = os.lstat(name, dir_fd=parent).st_mode
    if not boxed:
        return stat.S_ISLNK(mode)
    return stat.S_ISDIR(mode) if source.is_dir() else stat.S_ISREG(mode)


def clear(job: Job) -> None:
    """Take away what `place` made, as far as it is still there and empty; never through a link that the program made."""
    for path in (PurePosixPath(target(mount)) for mount in job.mounts):
        if path.is_absolute():
            continue
        with suppress(OSError):
            parent = open_folder(job.folder / "home", *path.parent.parts)
            try:
                _remove(path.name, parent)
            finally:
                os.close(parent)


def _remove(name: str, parent: int) -> None:
    found = os.lstat(name, dir_fd=parent)
    if stat.S_ISDIR(found.st_mode):
        os.rmdir(name, dir_fd=parent)
    elif stat.S_ISLNK(found.st_mode) or found.st_size == 0:
        os.unlink(name, dir_fd=parent)
