from collections.abc import Iterator
from typing import Annotated, ClassVar
from uuid import UUID

from execbroker.model.base import Float, Kinded, Uri, Wire
from execbroker.model.hints import Xml
from execbroker.model.messages import MessageItem
from execbroker.model.options import Option
from execbroker.model.phases import LifecyclePhase
from execbroker.model.registry import Family, published
from execbroker.model.times import DateTime, Duration, Instant, Interval
from execbroker.model.waist import Form, Launch, Named, Source


class AbstractCostItem(Kinded):
    """A cost, of the given `type` (monetary, energy, carbon)."""

    type: Uri | None = None
    description: str | None = None


class UnknownCost(AbstractCostItem):
    pass


class AbstractMetricItem(Kinded):
    """A measure of performance, of the given `type`."""

    type: Uri | None = None
    description: str | None = None


class UnknownMetric(AbstractMetricItem):
    pass


COSTS = Family("costs", AbstractCostItem, UnknownCost)
METRICS = Family("metrics", AbstractMetricItem, UnknownMetric)
COSTS.register(published("costs", "abstract-cost-item"))(AbstractCostItem)
METRICS.register(published("metrics", "abstract-metric-item"))(AbstractMetricItem)


@COSTS.register(published("costs", "simple-minmax-float-cost"))
class SimpleMinMaxFloatCost(AbstractCostItem):
    min: Float | None = None
    max: Float | None = None


@METRICS.register(published("metrics", "simple-minmax-float-metric"))
class SimpleMinMaxFloatMetric(AbstractMetricItem):
    min: Float | None = None
    max: Float | None = None


Cost = Annotated[AbstractCostItem, COSTS, Xml("cost")]
Metric = Annotated[AbstractMetricItem, METRICS, Xml("metric")]


class ComponentMetadata(Wire):
    uuid: UUID | None = None
    name: str | None = None
    url: Uri | None = None
    description: str | None = None
    created: DateTime | None = None
    modified: DateTime | None = None
    messages: list[Annotated[MessageItem, Xml("message")]] | None = None
    options: list[Option] | None = None


class AbstractComponent(Kinded):
    meta: ComponentMetadata | None = None
    costs: list[Cost] | None = None
    metrics: list[Metric] | None = None

    @property
    def name(self) -> str | None:
        return self.meta.name if self.meta else None


class LifecycleStartDurationInstant(Wire):
    start: Instant | None = None
    duration: Duration | None = None


class LifecycleStartDurationInterval(Wire):
    start: Interval | None = None
    duration: Duration | None = None


class LifecycleSchedule(Wire):
    preparing: LifecycleStartDurationInstant | None = None
    available: LifecycleStartDurationInterval | None = None
    releasing: LifecycleStartDurationInstant | None = None


class LifecycleComponent(AbstractComponent):
    """A component that is prepared, available and released with its session."""

    phase: LifecyclePhase | None = None
    schedule: LifecycleSchedule | None = None


class AbstractVolumeMount(AbstractComponent):
    """Where inside the session a resource is seen."""


class UnknownVolumeMount(AbstractVolumeMount):
    pass


VOLUMES = Family("volume", AbstractVolumeMount, UnknownVolumeMount)
Volume = Annotated[AbstractVolumeMount, VOLUMES]


class AbstractComputeResource(LifecycleComponent):
    volumes: list[Volume] | None = None


class UnknownComputeResource(AbstractComputeResource):
    pass


class AbstractStorageResource(LifecycleComponent):
    """Space for data and results; `data` lists the uuids of the data resources that live in it."""

    data: list[str] | None = None


class UnknownStorageResource(AbstractStorageResource):
    pass


class AbstractDataResource(LifecycleComponent):
    """Input data; `storage` is the name or uuid of the storage it is staged to."""

    storage: str | None = None

    def sources(self) -> list[Source]:
        """The files to fetch. Raises ValueError, with what would be right, where there is nothing to fetch from."""
        raise NotImplementedError

    def names(self) -> Iterator[Named]:
        """What a platform may have rules for. Called only where there is something to fetch."""
        return (Named("data", "location", source.url) for source in self.sources())


class UnknownDataResource(AbstractDataResource):
    pass


class AbstractExecutable(LifecycleComponent):
    """What is to be run."""

    SORT: ClassVar[str] = "programs"
    """What its sources are."""
    FORM: ClassVar[Form | None] = None
    """What every one of the kind is launched as, so that platforms can tell beforehand which kinds they run."""

    def reasons_against(self) -> list[MessageItem]:
        """What is wrong with it, whatever the platform; [] where nothing is."""
        return []

    def launch(self) -> Launch:
        """What a platform has to do to run it. Called only where there is nothing against it."""
        raise NotImplementedError

    def names(self) -> Iterator[Named]:
        """What a platform may have rules for. Called only where there is nothing against it."""
        launch = self.launch()
        yield from (Named(self.SORT, "location", source.url) for source in launch.sources)
        if launch.image:
            yield Named("images", "location", launch.image)


class UnknownExecutable(AbstractExecutable):
    pass


COMPUTES = Family("compute", AbstractComputeResource, UnknownComputeResource)
STORAGES = Family("storage", AbstractStorageResource, UnknownStorageResource)
DATA = Family("data", AbstractDataResource, UnknownDataResource)
EXECUTABLES = Family("executable", AbstractExecutable, UnknownExecutable)

Compute = Annotated[AbstractComputeResource, COMPUTES]
Storage = Annotated[AbstractStorageResource, STORAGES]
Data = Annotated[AbstractDataResource, DATA]
Executable = Annotated[AbstractExecutable, EXECUTABLES]
