"""Certificates of the tests' own."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NEEDED = "openssl is not here: install it (on Debian and Ubuntu: openssl)"


class Pair(NamedTuple):
    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"certificate": str(self.certificate), "key": str(self.key)}


def self_signed(folder: Path, name: str = "broker", *hosts: str) -> Pair:
    """A certificate for these hosts, signed by itself."""
    if not (openssl := shutil.which("openssl")):
        assert not os.environ.get("CI"), NEEDED
        pytest.skip(NEEDED)
    found = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    names = ",".join(f"{'IP' if host[0].isdigit() else 'DNS'}:{host}" for host in hosts or ("broker.example.org",))
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += [
        "-subj",
        f"/CN={name}",
        "-addext",
        f"subjectAltName={names}",
        "-keyout",
        str(found.key),
        "-out",
        str(found.certificate),
    ]
    subprocess.run([openssl, *words], check=True, capture_output=True)
    return found
