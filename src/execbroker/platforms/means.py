from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

from pydantic import Field

from execbroker.errors import StartupError
from execbroker.platforms.base import Context, PlatformSettings
from execbroker.platforms.confine import Confinement, find_confinement
from execbroker.platforms.network import Network, find_network
from execbroker.platforms.sandbox import Bubblewrap, find_bubblewrap


class LocalSettings(PlatformSettings):
    isolation: Literal["auto", "bubblewrap", "none"] = Field(
        "auto", description="Whether sessions run in bubblewrap: where it works (auto), always (bubblewrap) or never (none)."
    )
    network: Literal["auto", "shared", "own", "none"] = Field(
        "auto",
        description="The network of sessions: this machine's (shared), one of its own for each that leads out (own) or nowhere "
        "(none); auto is shared, but own with accounts.",
    )
    network_allow: list[IPv4Network] = Field(
        default_factory=list,
        description="Private networks or addresses (10.1.0.0/16), and addresses of this machine, that sessions with a network of "
        "their own may reach.",
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

    @property
    def network(self) -> Network | None:
        """The network of its own that each session gets."""
        return self.sandbox.network if self.sandbox else None

    def notes(self) -> tuple[str, ...]:
        apart = "Isolation: bubblewrap hides the broker's data and other sessions, and gives absolute mounts."
        if not self.sandbox:
            apart = f"Isolation: none, because {self.no_sandbox}; sessions can read, and write, what the broker can."
        network = "Network: this machine's; sessions reach what listens on it, and one another."
        if self.network:
            network = self.network.note()
        return (*self.confinement.notes(), apart, network, "Storage: booked, not limited while a session runs.")


def find_means(settings: LocalSettings, context: Context) -> Means:
    """Try out what there is. Raises StartupError where what is wanted, or needed for several users, does not work."""
    context.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = "own" if settings.network == "auto" and context.several else settings.network
    apart = mode in {"own", "none"}
    if context.several and (settings.isolation == "none" or not apart):
        setting = "isolation: none" if settings.isolation == "none" else f"network: {mode}"
        raise StartupError(f"platform {settings.name}: with accounts sessions are kept apart; leave out the setting {setting}")
    if apart and settings.isolation == "none":
        raise StartupError(f"platform {settings.name}: network: {mode} needs bubblewrap; leave out the setting isolation: none")
    sandbox, why = _find_sandbox(settings, context, mode if apart else None)
    if not sandbox and (context.several or apart or settings.isolation == "bubblewrap"):
        wanted = "with accounts sessions are kept apart" if context.several else "sessions are to be kept apart"
        raise StartupError(f"platform {settings.name}: {wanted}, but {why}")
    return Means(sandbox, None if sandbox else why, find_confinement())


def _find_sandbox(settings: LocalSettings, context: Context, network: str | None) -> tuple[Bubblewrap | None, str]:
    if settings.isolation == "none":
        return None, "the setting isolation is none"
    networks: list[Network] | tuple[None] = (None,)
    if network:
        networks, why = find_network(network, map(str, settings.network_allow))
        if not networks:
            return None, why
    return find_bubblewrap(context.folder / "trial", (*context.hidden, context.folder), networks)
