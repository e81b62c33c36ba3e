"""A stranger's platform, found by its entry point: the double, which leaves a line for every time that it really starts."""

from execbroker.model.waist import Job
from execbroker.platforms.fake import Fake


class Counted(Fake):
    async def start(self, job: Job) -> None:
        adopted = (job.folder / "run" / "fake.json").exists()
        await super().start(job)
        if not adopted:
            with (job.folder / "home" / "starts").open("a") as starts:
                starts.write("started\n")
