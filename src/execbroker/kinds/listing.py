from execbroker.model.components import COMPUTES, DATA, EXECUTABLES, STORAGES, VOLUMES


def kinds_spoken() -> dict[str, list[str]]:
    """Every kind that may be asked for here, by family."""
    return {family.name: sorted(family.members) for family in (EXECUTABLES, COMPUTES, STORAGES, DATA, VOLUMES)}
