import asyncio
import hashlib
import re
import zlib
from pathlib import Path
from typing import Protocol

BLOCK = 8 << 20
# Hexadecimal digits of each algorithm that is understood.
DIGITS = {"sha512": 128, "sha384": 96, "sha256": 64, "sha224": 56, "sha1": 40, "md5": 32, "adler32": 8}


class Sum(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Adler32:
    """The checksum of Rucio and dCache (RFC 1950), in the manner of hashlib."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def read_checksum(text: str) -> tuple[str, str]:
    """`<algorithm>:<hex>` as the two in lower case; `SHA-256` is sha256. Raises ValueError, with what would be right."""
    algorithm, _, digest = text.strip().lower().partition(":")
    algorithm = algorithm.replace("-", "")
    if algorithm not in DIGITS:
        raise ValueError(f"{text!r} is not <algorithm>:<hex> with one of the algorithms {', '.join(DIGITS)}")
    if not re.fullmatch(f"[0-9a-f]{{{DIGITS[algorithm]}}}", digest):
        raise ValueError(f"{text!r} should have {DIGITS[algorithm]} hexadecimal digits after {algorithm}:")
    return algorithm, digest


async def checksum_of(file: Path, algorithm: str) -> str:
    """The checksum of a whole file, in lower-case hexadecimal digits. Raises OSError."""
    total: Sum = Adler32() if algorithm == "adler32" else hashlib.new(algorithm, usedforsecurity=False)
    with await asyncio.to_thread(file.open, "rb", buffering=0) as opened:
        while block := await asyncio.to_thread(opened.read, BLOCK):
            await asyncio.to_thread(total.update, block)
    return total.hexdigest()
