"""What the page on policies shows is so."""

import asyncio
import re
from pathlib import Path
from typing import Any

import yaml

from brokersite import asked
from peoplesite import PeopleSite

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
NOTEBOOK = {"kind": "jupyter-notebook", "location": "https://data.observatory.org/a.ipynb"}


def test_the_example_does_what_it_says(tmp_path: Path) -> None:
    async def told() -> None:
        [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        async with PeopleSite(tmp_path, **yaml.safe_load(text)) as site:
            al, guest, other = site.person("al", "project-x"), site.person("gus", "guests"), site.person("o", "others")
            assert [one["name"] for one in (await other.me())["platforms"]] == ["open"]
            assert [one["name"] for one in (await guest.me())["platforms"]] == ["cluster", "open"]
            session = await al.take(executable=NOTEBOOK, platforms="cluster", **asked(4, 1, "PT3H7M30S"))
            shown: dict[str, Any] = (await al.me())["platforms"][0]
            assert shown["quotas"].pop()["name"] == "project-x"
            [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
            assert [shown] == yaml.safe_load(example)["platforms"]
            assert (await al.extend(session, 5 * 60)).status_code == 409
            elsewhere = {**NOTEBOOK, "location": "https://example.org/a.ipynb"}
            assert set(await al.refused(executable=elsewhere, platforms="cluster")) == {"not-allowed", "counter-offer"}
            await guest.offers(executable=elsewhere, platforms="cluster", **asked(2, 1, "PT1H"))
            assert await site.faults() == []

    asyncio.run(told())
