"""What stacks stand on: the layers on this machine, the CDK's bootstrap stack, AWS's service roles."""

from __future__ import annotations

import sys
import time
from typing import Any

from botocore.exceptions import ClientError

from operations.deployment import stacks, toolkit
from operations.deployment.account import Account, Say
from operations.deployment.toolkit import Toolkit
from operations.failures import OperationFailed

BOOTSTRAP_STACK = "CDKToolkit"
LEAST_BOOTSTRAP = 6  # assets of files and images; the CDK's assemblies ask for it by this number
# AWS makes these roles at the first use of a service, and that first use may come too early for them: in a
# fresh account the first ECS cluster is refused.
SERVICES = ("ecs.amazonaws.com", "elasticache.amazonaws.com", "rds.amazonaws.com")


class BuildLayers:
    """`layers.build` knows by itself what is up to date."""

    name = "layers"

    def __init__(self, cdk: Toolkit) -> None:
        self._cdk = cdk

    def is_done(self, account: Account) -> bool:
        return False

    def run(self, account: Account, say: Say) -> None:
        command = [sys.executable, "-m", "layers.build", "--target", "aws"]
        if toolkit.run(command, self._cdk.environment()):
            raise OperationFailed("the layers could not be built; the reason is above")


class Bootstrap:
    """The bucket, the image registry and the roles that the CDK deploys with, once an account and region."""

    name = "bootstrap"

    def __init__(self, cdk: Toolkit, sleep: stacks.Sleep = time.sleep) -> None:
        self._cdk = cdk
        self._sleep = sleep

    def is_done(self, account: Account) -> bool:
        return bootstrap_version(account) >= LEAST_BOOTSTRAP

    def run(self, account: Account, say: Say) -> None:
        stacks.settled_stack(account, BOOTSTRAP_STACK, say, self._sleep)  # of an interrupted deployment
        if not self.is_done(account):
            self._cdk.bootstrap()


def bootstrap_version(account: Account) -> int:
    """The version of the bootstrap stack; 0 where there is none that works."""
    found: Any = account.stack(BOOTSTRAP_STACK)
    if found is None or found["StackStatus"] not in (
        *("CREATE_COMPLETE", "UPDATE_COMPLETE"),
        *("UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"),
    ):
        return 0
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    return int(outputs.get("BootstrapVersion", 0))


class ServiceRoles:
    """The roles by which ECS, ElastiCache and RDS act in the account."""

    name = "service roles"

    def is_done(self, account: Account) -> bool:
        return not self._missing(account)

    def run(self, account: Account, say: Say) -> None:
        for service in self._missing(account):
            try:
                account.client("iam").create_service_linked_role(AWSServiceName=service)
            except ClientError as error:
                # Another deployment, or the service itself, was quicker.
                if "has been taken" not in error.response["Error"].get("Message", ""):
                    raise
            say(f"made that of {service}")

    def _missing(self, account: Account) -> list[str]:
        iam = account.client("iam")
        return [
            service
            for service in SERVICES
            if not iam.list_roles(PathPrefix=f"/aws-service-role/{service}/")["Roles"]
        ]
