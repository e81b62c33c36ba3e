from typing import Any

from execbroker.documents import Block, lifted, present, without
from execbroker.errors import Fault
from execbroker.kinds.storage import SimpleStorageResource
from execbroker.model.components import STORAGES
from execbroker.model.registry import published, short_name

NOTEBOOKS = {"jupyter-notebook", "notebook"}
OBJECT_STORES = {"amazon-s3-storage", "amazon-s3"}
EPHEMERAL = {"ephemeral-storage"}
S3 = published("data", "S3-data-resource")
SIMPLE = published("storage", "simple-storage-resource")


def executable_of(executable: Any, faults: list[Fault]) -> Any:
    """The draft's fields of notebooks, programs and containers in the terms of the 2024 dialect."""
    if not isinstance(executable, dict):
        return executable
    executable = lifted(executable)
    if isinstance(notebook := executable.get("notebook"), dict):
        executable["notebook"] = notebook.get("file")
    if _kind(executable) in NOTEBOOKS:
        executable.pop("endpoint", None)  # the service's to say, in replies
    if "requirements" in executable:
        executable["requirements"] = _requirements(executable["requirements"])
    if "repo" in executable and "repository" not in executable:
        executable["repository"] = executable.pop("repo")
    if isinstance(platforms := executable.get("platforms"), list) and "platform" not in executable:
        if len(platforms) > 1:
            text = f"one platform is needed here, of the {len(platforms)} that the container is built for"
            faults.append(Fault("executable.image.platform", "several", text))
        executable = without(executable, "platforms") | {"platform": next(iter(platforms), None)}
    return present(executable)


def _requirements(requirements: Any) -> Any:
    """A list of PEP 508; a file of them is an address, which is no requirement, and so a reason for NO."""
    if isinstance(requirements, dict) and "file" in requirements:
        requirements = requirements["file"]
    if isinstance(requirements, str):
        return [requirements]
    if not isinstance(requirements, list):
        return requirements
    pairs = [one if isinstance(one, dict) else {one: ""} if isinstance(one, str) else one for one in requirements]
    if not all(isinstance(one, dict) and all(isinstance(text, str | None) for text in one.values()) for one in pairs):
        return requirements
    return [f"{name}{version or ''}" for one in pairs for name, version in one.items()]


def is_object_store(storage: Any) -> bool:
    return isinstance(storage, dict) and _kind(storage) in OBJECT_STORES


def data_of(storage: Block, faults: list[Fault]) -> Block:
    """Storage in S3 that is there already, as the data that it is."""
    data = lifted(storage)
    managed = data.keys() & {"lifecycle", "lifetime", "size"}
    if managed and data.get("lifecycle") != "unmanaged":
        text = f"data in S3 is only read: leave out {', '.join(sorted(managed))}, or ask for storage of the kind {SIMPLE}"
        faults.append(Fault("storage", "not-managed", text))
    return {"kind": S3} | without(data, "kind", "type", "lifecycle")


def storage_of(storage: Block, path: str, faults: list[Fault]) -> Block:
    kind = storage.get("kind") or storage.get("type") or SIMPLE
    if isinstance(lifetime := storage.get("lifetime"), dict) and lifetime.keys() == {"max"}:
        storage["lifetime"] = lifetime["max"]
    if _kind(storage) in EPHEMERAL:
        return {"kind": SIMPLE, "lifetime": "PT0S"} | without(storage, "kind", "type")
    if isinstance(kind, str) and STORAGES.resolve(kind) is SimpleStorageResource and "lifecycle" in storage:
        if storage["lifecycle"] != "managed":
            text = "storage of this kind is made and deleted by the service: lifecycle is managed, or left out"
            faults.append(Fault(f"{path}.kind", "not-managed", text, kind))
        del storage["lifecycle"]
    return storage


def files_of(data: Any) -> dict[str, str]:
    """The file names of the data resources that have a name."""
    found = {}
    for one in data if isinstance(data, list) else ():
        inner = lifted(one) if isinstance(one, dict) else {}
        name, location = inner.get("name"), inner.get("location")
        if isinstance(name, str) and isinstance(location, str):
            found[name] = location.rpartition("/")[2]
    return found


def volume_of(volume: Any, path: str, faults: list[Fault], files: dict[str, str]) -> Any:
    """The draft's `filepath` is where one file is seen; v1.0 says in which folder it is."""
    if not (isinstance(volume, dict) and "filepath" in (volume := lifted(volume)) and "path" not in volume):
        return volume
    filepath, resource = volume["filepath"], volume.get("resource") or volume.get("name")
    folder, _, name = filepath.rpartition("/") if isinstance(filepath, str) else ("", "", "")
    if folder and isinstance(resource, str) and files.get(resource) == name:
        return without(volume, "filepath") | {"path": folder}
    text = "the folder in which the resource is seen is needed here; a single file keeps the name that it has at its location"
    faults.append(Fault(f"{path}.path", "filepath", text, str(filepath)[:100]))
    return volume


def _kind(component: Block) -> str | None:
    kind = component.get("kind") or component.get("type")
    return short_name(kind) if isinstance(kind, str) else None
