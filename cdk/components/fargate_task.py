"""A task on Fargate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from aws_cdk import Acknowledgment, Duration, Validations
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from cdk.components.log_group import LogGroup

ROOT = Path(__file__).resolve().parents[2]


def left_out(dockerfile: str) -> list[str]:
    """The patterns of what the image of `dockerfile` is not made of. The CDK does not read the file that
    Docker does, and would copy the whole repository, and rebuild the image with any change of it."""
    lines = (ROOT / f"{dockerfile}.dockerignore").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class FargateTask(ecs.FargateTaskDefinition):
    """The definition of a task of one container, built from a Dockerfile of the repository.

    The container may not harm its machine: it is not root, has no capabilities and cannot write its root file
    system. Its log group is the scope's.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        dockerfile: str,
        cpu: int,
        memory_mb: int,
        architecture: Literal["arm64", "x86_64"],
        log_retention: str,
        variables: Mapping[str, str],
        variables_reason: str,
        secrets: Mapping[str, ecs.Secret],
        log_mode: ecs.AwsLogDriverMode | None = None,
        stop_timeout: Duration | None = None,
        health_check: ecs.HealthCheck | None = None,
    ) -> None:
        """`variables_reason`: why the container may have its `variables` in plain text."""
        # The image has to be built for the machine that it runs on.
        machine, platform = {
            "arm64": (ecs.CpuArchitecture.ARM64, ecr_assets.Platform.LINUX_ARM64),
            "x86_64": (ecs.CpuArchitecture.X86_64, ecr_assets.Platform.LINUX_AMD64),
        }[architecture]
        super().__init__(
            scope,
            construct_id,
            cpu=cpu,
            memory_limit_mib=memory_mb,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=machine,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        self.log_group = LogGroup(scope, "Logs", retention=log_retention)
        linux = ecs.LinuxParameters(scope, "Linux", init_process_enabled=True)
        linux.drop_capabilities(ecs.Capability.ALL)
        self.add_container(
            name,
            image=ecs.ContainerImage.from_asset(
                str(ROOT),
                file=dockerfile,
                platform=platform,
                exclude=left_out(dockerfile),
            ),
            environment=dict(variables),
            secrets=dict(secrets),
            logging=ecs.LogDriver.aws_logs(
                stream_prefix=name.lower(),
                log_group=self.log_group,
                mode=log_mode,
            ),
            user="10001:10001",
            readonly_root_filesystem=True,
            linux_parameters=linux,
            stop_timeout=stop_timeout,
            health_check=health_check,
        )
        Validations.of(self).acknowledge(
            Acknowledgment(id="AwsSolutions-ECS2", reason=variables_reason),
            Acknowledgment(
                id="AwsSolutions-IAM5[Resource::*]",
                reason="ecr:GetAuthorizationToken, with which the image is fetched, has no resource level.",
            ),
        )
