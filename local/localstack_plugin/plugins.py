"""What LocalStack loads at its start; it imports the rest once it needs it."""

from __future__ import annotations

from typing import Any

from localstack.runtime import hooks
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin


class ProcessExecutorPlugin(RuntimeExecutorPlugin):  # type: ignore[misc]
    """Chosen by LAMBDA_RUNTIME_EXECUTOR=process."""

    name = "process"

    def load(self, *args: Any, **kwargs: Any) -> Any:
        from local.localstack_plugin.executor import ProcessExecutor

        return ProcessExecutor


@hooks.on_infra_start()  # type: ignore[untyped-decorator]
def give_lists_for_wildcards() -> None:
    """Mend LocalStack's Step Functions: before the service is loaded, with the first state machine."""
    from local.localstack_plugin import json_paths

    json_paths.give_lists_for_wildcards()
