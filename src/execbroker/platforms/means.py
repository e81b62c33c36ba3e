from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from execbroker.errors import StartupError
from execbroker.platforms.base import Context, PlatformSettings
from execbroker.platforms.confine import Confinement, find_confinement
from execbroker.platforms.sandbox import Bubblewrap, find_bubblewrap


class LocalSettings(PlatformSettings):
    isolation: Literal["auto", "bubblewrap", "none"] = Field(
        "auto", description="Whether sessions run in bubblewrap: where it works (auto), always (bubblewrap) or never (none)."
    )
    memory_reserve: int | None = Field(None, ge=0, description="Memory never offered, in GiB; a tenth, at least 1, if left out.")
    storage_reserve: int | None = Field(
        None, ge=0, description="Free disk never offered, in GiB; a twentieth of the disk, at least 1, if left out."
    )
    output_limit: int = Field(10 * 2**20, ge=0, description="How much of stdout, and of stderr, is kept, in bytes.")
    environments: Path | None = Field(None, description="Where Python environments are kept; in the broker's data if left out.")


@dataclass(frozen=True, slots=True)
class Means:
    """What this machine has to keep sessions apart and within their limits."""

    sandbox: Bubblewrap | None
    no_sandbox: str | None
    confinement: Confinement

    def notes(self) -> tuple[str, ...]:
        apart = "Isolation: bubblewrap hides the broker's data and other sessions, and gives absolute mounts."
        if not self.sandbox:
            apart = f"Isolation: none, because {self.no_sandbox}; sessions can read, and write, what the broker can."
        return (*self.confinement.notes(), apart, "Storage: booked, not limited while a session runs.")


def find_means(settings: LocalSettings, context: Context) -> Means:
    """Try out what there is. Raises StartupError where bubblewrap is wanted and does not work."""
    context.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sandbox, why = None, "the setting isolation is none"
    if settings.isolation != "none":
        sandbox, why = find_bubblewrap(context.folder / "trial", (*context.hidden, context.folder))
    if settings.isolation == "bubblewrap" and not sandbox:
        raise StartupError(f"platform {settings.name}: isolation is to be by bubblewrap, but {why}")
    return Means(sandbox, None if sandbox else why, find_confinement())
