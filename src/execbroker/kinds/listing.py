from execbroker.model.components import COMPUTES, DATA, EXECUTABLES, STORAGES, VOLUMES

FAMILIES = (EXECUTABLES, COMPUTES, STORAGES, DATA, VOLUMES)
"""Of all that may be asked for."""


def kinds_spoken() -> dict[str, list[str]]:
    """Every kind that may be asked for here, by family."""
    return {family.name: sorted(family.members) for family in FAMILIES}
