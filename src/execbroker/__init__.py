"""An IVOA ExecutionBroker: where, how and when can I run this?"""

from importlib.metadata import version

__version__ = version("execbroker")
