"""Run with the generated client against a broker: asks, reads the offers, accepts, cancels, runs directly.

    visit.py BASE_URL TOKEN

Writes what it saw as JSON and ends 0, or says on stderr what was wrong and ends 1.
"""

import asyncio
import json
import sys
from typing import Any

from published_client import (
    ApiClient,
    Configuration,
    DefaultApi,
    EnumValueUpdate,
    ExecutionRequest,
    JupyterNotebook,
    ScheduledExecutionSession,
    SimpleComputeCores,
    SimpleComputeResource,
)
from published_client.exceptions import BadRequestException

KINDS = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds"
LOCATION = "http://example.org/notebook.ipynb"
ENOUGH_CORES, TOO_MANY_CORES = 1, 1_000_000
PATIENCE = 60


def check(condition: object, complaint: str) -> None:
    if not condition:
        sys.exit(complaint)


def a_request(cores: int) -> ExecutionRequest:
    kind = f"{KINDS}/compute/simple-compute-resource.yaml"
    return ExecutionRequest(
        executable=JupyterNotebook(kind=f"{KINDS}/executable/jupyter-notebook.yaml", location=LOCATION),
        compute=SimpleComputeResource(kind=kind, cores=SimpleComputeCores(min=cores)),
    )


def check_offer(offer: Any) -> dict[str, Any]:
    check(type(offer) is ScheduledExecutionSession, f"an offer is a {type(offer).__name__}")
    check(offer.phase == "OFFERED", f"an offer is {offer.phase}")
    check(offer.expires and offer.meta and offer.meta.uuid, "an offer needs `expires` and `meta.uuid`")
    check(offer.schedule and offer.schedule.available and offer.schedule.available.start, "an offer has no start")
    check(type(offer.executable) is JupyterNotebook, f"the executable became a {type(offer.executable).__name__}")
    check(type(offer.compute) is SimpleComputeResource, f"the compute resource became a {type(offer.compute).__name__}")
    check(offer.compute.cores.max >= ENOUGH_CORES, "an offer has fewer cores than were asked for")
    choices = [option.values for option in offer.meta.options or [] if option.path.lstrip("/") == "phase"]
    check(choices and {"ACCEPTED", "REJECTED"} <= set(choices[0]), f"an offer's options are {choices}")
    return {"uuid": str(offer.meta.uuid), "schedule": offer.schedule.to_dict()}


def update(api: DefaultApi, uuid: str, phase: str) -> str:
    return api.session_update(uuid, EnumValueUpdate(kind="uri:enum-value-update", path="phase", value=phase)).phase


async def until(api: DefaultApi, uuid: str, phase: str) -> str:
    """The session's phase, which has to be `phase` before long."""
    for _ in range(PATIENCE * 5):
        if (seen := api.session_select(uuid).phase) == phase:
            return seen
        await asyncio.sleep(0.2)
    sys.exit(f"session {uuid} is {seen} and not {phase} after {PATIENCE} s")


async def ask_accept_cancel(api: DefaultApi) -> dict[str, Any]:
    offerset = api.execution_request(a_request(ENOUGH_CORES))
    check(offerset.result == "YES", f"the answer was {offerset.result}: {offerset.to_json()}")
    offers = [check_offer(offer) for offer in offerset.offers]
    again = api.offer_set_select(str(offerset.meta.uuid))
    check([check_offer(offer) for offer in again.offers] == offers, "the offerset read again has other offers")
    first, *others = [offer["uuid"] for offer in offers]
    accepted = update(api, first, "ACCEPTED")
    check(accepted not in ("OFFERED", "REJECTED", "EXPIRED", "FAILED"), f"after acceptance the session is {accepted}")
    rejected = [await until(api, uuid, "REJECTED") for uuid in others]
    update(api, first, "CANCELLED")
    return {"offers": len(offers), "accepted": accepted, "others": rejected, "cancelled": await until(api, first, "CANCELLED")}


async def run_directly(api: DefaultApi) -> dict[str, Any]:
    session = api.direct_execution(a_request(ENOUGH_CORES))
    check(type(session) is ScheduledExecutionSession, f"/direct gave a {type(session).__name__}")
    check(session.phase not in ("OFFERED", "FAILED"), f"after /direct the session is {session.phase}: {session.to_json()}")
    uuid = str(session.meta.uuid)
    update(api, uuid, "CANCELLED")
    return {"phase": session.phase, "cancelled": await until(api, uuid, "CANCELLED")}


def refusals(api: DefaultApi) -> dict[str, Any]:
    offerset = api.execution_request(a_request(TOO_MANY_CORES))
    check(offerset.result == "NO" and not offerset.offers, f"asked too much, the answer was {offerset.to_json()}")
    check(offerset.meta.messages, "NO came without a reason")
    try:
        session = api.direct_execution(a_request(TOO_MANY_CORES))
    except BadRequestException as refusal:
        session = refusal.data
        check(session is not None and session.phase == "FAILED", f"/direct refused with {refusal.body}")
        return {"result": offerset.result, "direct": session.phase}
    sys.exit(f"asked too much, /direct gave {session.to_json()}")


async def main(base: str, token: str) -> None:
    client = ApiClient(Configuration(host=base.rstrip("/")), "Authorization", f"Bearer {token}")
    api = DefaultApi(client)
    asked = await ask_accept_cancel(api)
    seen = {"asked": asked, "direct": await run_directly(api), "refused": refusals(api)}
    sys.stdout.write(json.dumps(seen, default=str) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
