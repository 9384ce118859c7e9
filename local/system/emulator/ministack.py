"""MiniStack, in a virtual environment of its own."""

from __future__ import annotations

from local.system import http_json
from local.system.processes import Process, Processes
from local.system.servers import HOST
from local.system.state_folder import BUILD, StateFolder

_VENV = BUILD / "ministack-venv"
# What functions run on under either emulator: the interpreter that the local layers are built for, with the
# packages that Lambda's runtime brings along.
FUNCTIONS_PYTHON = _VENV / "bin" / "python"


class MiniStack:
    """An `Emulator`. S3's objects are written through to the state folder."""

    title = "MiniStack"
    installed = _VENV / ".stamp"
    target = "make setup"
    keeps_objects = True
    applies_batch_windows = False
    names_errors = False
    streams_for_long = True

    def start(self, endpoint_url: str, processes: Processes, state: StateFolder) -> Process:
        settings = {
            "GATEWAY_PORT": endpoint_url.rpartition(":")[2],
            "BIND_HOST": HOST,
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(state.s3),
            # Listeners on fixed ports, on which two systems would conflict.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",  # functions run as processes, without Docker
            # Its functions bring their own packages, in layers.
            "PYTHONPATH": "",
        }
        return processes.start("ministack", [FUNCTIONS_PYTHON, "-m", "ministack"], environment=settings)

    def is_ready(self, endpoint_url: str) -> bool:
        return http_json.get(f"{endpoint_url}/_ministack/ready", timeout_s=1).status == 200
