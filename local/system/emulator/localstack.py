"""LocalStack in host mode: on this machine's Python 3.13, without Docker.

Functions run as processes by the project's own plugin, `local.localstack_plugin`.
"""

from __future__ import annotations

import os

from local.system import http_json
from local.system.emulator.ministack import FUNCTIONS_PYTHON
from local.system.processes import Process, Processes
from local.system.state_folder import BUILD, ROOT, StateFolder

_VENV = BUILD / "localstack-venv"
_LIBRARIES = _VENV / "files" / "usr" / "lib" / "localstack"  # the server of Kinesis, from npm
_FUNCTION_START_S = 60  # in which a function is imported, while all others are too


class LocalStack:
    """An `Emulator`. It keeps S3's objects in the folder of temporary files, under names of its own."""

    title = "LocalStack"
    installed = _VENV / ".stamp"
    target = "make test-localstack (needs Python 3.13)"
    keeps_objects = False
    applies_batch_windows = True
    names_errors = True
    streams_for_long = False  # it keeps all records of a day: after 20 minutes of ticks puts take too long

    def start(self, endpoint_url: str, processes: Processes, state: StateFolder) -> Process:
        files = state.temp / "localstack"  # removed with the run; only what is installed is shared
        libraries = files / "usr" / "lib" / "localstack"
        libraries.parent.mkdir(parents=True)
        libraries.symlink_to(_LIBRARIES)
        settings = {
            "FILESYSTEM_ROOT": str(files),
            "XDG_CACHE_HOME": str(files / "cache"),
            "GATEWAY_LISTEN": endpoint_url.removeprefix("http://"),
            "OVERRIDE_IN_DOCKER": "0",
            # It talks to no other host: no telemetry, no certificate, no name server of its own.
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            "KINESIS_PERSISTENCE": "0",  # it would write all records to disk every five seconds
            "LS_LOG": "warn",  # not a line for each request
            "DOCKER_HOST": "unix:///nonexistent",
            "LAMBDA_RUNTIME_EXECUTOR": "process",
            "LAMBDA_RUNTIME_ENVIRONMENT_TIMEOUT": str(_FUNCTION_START_S),
            "LAMBDA_EVENT_SOURCE_MAPPING_POLL_INTERVAL_SEC": "0.1",  # AWS's consumers wait less than a second
            "TICKCAST_FUNCTIONS_PYTHON": str(FUNCTIONS_PYTHON),
            "TICKCAST_FUNCTIONS_LOGS": str(state.logs),
            # The plugin, and the folder whose metadata announces it.
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "local" / "localstack_plugin")]),
        }
        return processes.start(
            "localstack",
            [_VENV / "bin" / "python", "-m", "localstack.runtime.main"],
            environment=settings,
            grace_s=15,
        )

    def is_ready(self, endpoint_url: str) -> bool:
        return http_json.get(f"{endpoint_url}/_localstack/health", timeout_s=1).status == 200
