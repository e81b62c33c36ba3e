import json
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from execbroker.kinds.executables.python import location_against, requirements_against
from execbroker.kinds.naming import file_name
from execbroker.model.components import EXECUTABLES, AbstractExecutable
from execbroker.model.messages import MessageItem
from execbroker.model.registry import published
from execbroker.model.waist import Form, Launch, Port, Source

PARAMETERS = ".parameters.json"
QUIET_KERNEL = {".ipython/profile_default/ipython_kernel_config.json": json.dumps({"IPKernelApp": {"log_level": 50}})}
"""Without it every kernel warns that it listens on loopback, which nobody who runs a notebook can change."""


@EXECUTABLES.register(published("executable", "jupyter-notebook"), "notebook")
class JupyterNotebook(AbstractExecutable):
    """A notebook: by default opened in JupyterLab for a person.

    Extensions: `mode: batch` executes it without one and keeps the executed notebook beside it as `<name>-executed.ipynb`;
    `parameters` are injected after the cell tagged `parameters`; `requirements` are installed for it.
    """

    SORT: ClassVar[str] = "notebooks"
    FORM: ClassVar[Form] = "process"
    location: str | None = None
    mode: Literal["interactive", "batch"] | None = None
    parameters: dict[str, Any] | None = None
    requirements: list[str] | None = None
    environment: dict[str, str] | None = None

    def reasons_against(self) -> list[MessageItem]:
        return [*location_against(self.location, "A notebook"), *requirements_against(self.requirements)]

    def launch(self) -> Launch:
        location = self.location or ""
        notebook = file_name(location, "notebook.ipynb")
        if not notebook.endswith(".ipynb"):
            notebook += ".ipynb"
        form = self._batch(notebook) if self.mode == "batch" else self._lab(notebook)
        return Launch(
            self.FORM,
            environment=self.environment or {},
            sources=(Source(location, notebook),),
            **form,
        )

    def _batch(self, notebook: str) -> dict[str, Any]:
        executed = notebook.removesuffix(".ipynb") + "-executed.ipynb"
        kernel = ("--kernel", "python3", "--language", "python", "--no-progress-bar", "--log-level", "WARNING")
        streams = ("--stdout-file", "/dev/stdout", "--stderr-file", "/dev/stderr")
        return {
            "command": ("python", "-m", "papermill", notebook, executed, *kernel, *streams, "--parameters_file", PARAMETERS),
            "requirements": ("ipykernel", "papermill", *(self.requirements or [])),
            "files": {PARAMETERS: json.dumps(self.parameters or {}), **QUIET_KERNEL},
        }

    def _lab(self, notebook: str) -> dict[str, Any]:
        options = ("--no-browser", "--allow-root", "--ServerApp.port_retries=0", "--ServerApp.root_dir=.")
        return {
            "command": ("python", "-m", "jupyterlab", *options),
            "requirements": ("jupyterlab", "ipykernel", *(self.requirements or [])),
            "ports": (Port("JUPYTER_PORT", "HTTP", f"/lab/tree/{quote(notebook)}?token={{secret}}"),),
            "secret_env": "JUPYTER_TOKEN",
        }
