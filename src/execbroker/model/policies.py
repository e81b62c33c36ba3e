"""What a platform's settings say of who may use it, for what, and how much."""

from pydantic import BaseModel, ConfigDict, Field

from execbroker.model.times import Duration

SORTS = ("images", "notebooks", "programs", "data", "hosts", "endpoints", "ivoids", "rucio", "skao", "ports", "paths")
"""What requests name, by sort, and may be allowed or denied."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Patterns(Section):
    """Shell-style patterns, by the sort of what they are for."""

    images: list[str] | None = Field(None, description="Images, by repository, or repository with tag or digest.")
    notebooks: list[str] | None = Field(None, description="Locations of notebooks.")
    programs: list[str] | None = Field(None, description="Locations of programs.")
    data: list[str] | None = Field(None, description="Locations of data; an object in S3 is s3://bucket/object.")
    hosts: list[str] | None = Field(None, description="Hosts of all these locations, and of the services of data.")
    endpoints: list[str] | None = Field(None, description="Addresses of S3 services.")
    ivoids: list[str] | None = Field(None, description="IVOA identifiers of data.")
    rucio: list[str] | None = Field(None, description="Rucio scopes, or scope:name.")
    skao: list[str] | None = Field(None, description="Namespaces of the SKAO data lake.")
    ports: list[int | str] | None = Field(None, description="Ports of containers, inside and outside.")
    paths: list[str] | None = Field(None, description="Where volumes are mounted.")

    def of(self, sort: str) -> list[str] | None:
        found = getattr(self, sort)
        return None if found is None else [str(pattern) for pattern in found]


class Limits(Section):
    """What one session may have, all its nodes together."""

    cores: int | None = Field(None, ge=1, description="How many cores a session has at most, all its nodes together.")
    memory: int | None = Field(None, ge=1, description="How much memory a session has at most, in GiB, all its nodes together.")
    storage: int | None = Field(None, ge=0, description="How much storage a session has at most, in GiB.")
    accelerators: int | None = Field(None, ge=0, description="How many accelerators a session has at most, of any kind.")
    nodes: int | None = Field(None, ge=1, description="How many nodes a session has at most.")
    duration: Duration | None = Field(None, description="How long a session is at most, extensions included.")


class Quota(Section):
    """What an owner, or a group, may have on a platform."""

    cores: int | None = Field(None, ge=0, description="How many cores may be held at the same time.")
    memory: int | None = Field(None, ge=0, description="How much memory may be held at the same time, in GiB.")
    sessions: int | None = Field(None, ge=0, description="How many sessions may be held at the same time.")
    held: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="How many core-hours may be held in offers that are not accepted."
    )
    monthly: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="How many core-hours may be used in a calendar month, UTC."
    )


class Quotas(Section):
    """What may be had by each owner, and by each group all together."""

    owner: Quota = Field(default_factory=Quota, description="Of each owner.")
    group: Quota = Field(default_factory=Quota, description="Of each group that the rule is for, all its members together.")


class Policy(Section):
    """A rule for those of some groups, or for everybody."""

    groups: list[str] | None = Field(None, description="Patterns of the groups it is for; left out: everybody.")
    allow: Patterns = Field(default_factory=Patterns, description="Of each sort that is named here, nothing else is allowed.")
    deny: Patterns = Field(default_factory=Patterns, description="What is not allowed, whatever else is.")
    limits: Limits = Field(default_factory=Limits, description="What one session may have.")
    quotas: Quotas = Field(default_factory=Quotas, description="What may be had in all.")
