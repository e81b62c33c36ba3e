"""The XML schemata of the IVOA, from a Debian package that ships them, in a folder outside the project."""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import xmlschema

from lacking import lack

PACKAGE = "python3-gavo"
WITHIN = "usr/lib/python3/dist-packages/gavo/resources/schemata"
ROOT = "http://www.ivoa.net/xml/VOResource/v1.0"
FILES = {
    ROOT: "VOResource.xsd",
    "http://www.ivoa.net/xml/VODataService/v1.1": "VODataService.xsd",
    "http://www.ivoa.net/xml/RegistryInterface/v1.0": "RegistryInterface.xsd",
    "http://www.ivoa.net/xml/VOSICapabilities/v1.0": "VOSICapabilities.xsd",
    "http://www.ivoa.net/xml/VOSIAvailability/v1.0": "VOSIAvailability.xsd",
    "http://www.ivoa.net/xml/STC/stc-v1.30.xsd": "stc.xsd",
    "http://www.w3.org/1999/xlink": "xlink.xsd",
}


def schema() -> xmlschema.XMLSchema:
    """One that knows all these namespaces, from files alone. That of STC is not quite legal, and nothing here uses it."""
    folder = _folder()
    locations = {namespace: str(folder / name) for namespace, name in FILES.items()}
    found = xmlschema.XMLSchema(
        locations[ROOT], locations=locations, allow="local", use_location_hints=False, validation="lax", build=False
    )
    for namespace in locations.keys() - {ROOT}:
        found.add_schema(locations[namespace], namespace, build=False)
    found.maps.build()
    return found


def _folder() -> Path:
    """Kept below the system's folder for temporary files; it gets its name when it is complete."""
    finished = Path(tempfile.gettempdir()) / f"execbroker-schemata-{os.getuid()}"
    if not finished.exists():
        folder = Path(tempfile.mkdtemp(prefix=f"{finished.name}-"))
        try:
            _make(folder)
            with suppress(OSError):  # another run was faster
                (folder / WITHIN).rename(finished)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return finished


def _make(folder: Path) -> None:
    how = f"the XML schemata of the IVOA are in the Debian package {PACKAGE}: as root, apt-get update"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        lack(how)
    if _run(folder, "apt-get", "download", PACKAGE):
        _run(folder, "apt-get", "update")
        if complaint := _run(folder, "apt-get", "download", PACKAGE):
            lack(f"{how}; {complaint}")
    assert not _run(folder, "dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder))


def _run(folder: Path, *command: str) -> str:
    """What it complains of; nothing where it is done."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return done.stderr.strip()[-300:] or "it failed" if done.returncode else ""
