import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
importlib.import_module("supervisor.program").main(sys.argv[1])
