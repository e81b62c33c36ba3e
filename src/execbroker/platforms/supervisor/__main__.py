import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
match sys.argv[1:]:
    case ["--gateway", told]:
        importlib.import_module("supervisor.gateway").main(told)
    case ["--boxed", network, *command]:
        sys.exit(importlib.import_module("supervisor.network").run_boxed(network, *command))
    case [folder]:
        importlib.import_module("supervisor.program").main(folder)
