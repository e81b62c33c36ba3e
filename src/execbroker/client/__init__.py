"""The Python client: `AsyncClient`, and `Client`, the same without `await`."""

from execbroker.client.changes import Change, changed, counter_offers
from execbroker.client.core import AsyncClient, File
from execbroker.client.events import Event
from execbroker.client.problems import ClientError, NoAnswer
from execbroker.client.sync import Client

__all__ = ["AsyncClient", "Change", "Client", "ClientError", "Event", "File", "NoAnswer", "changed", "counter_offers"]
