"""The hot store: state, features and predictions, in Valkey (Redis's protocol).

`Cache` is ElastiCache, where functions log in with IAM tokens that they sign themselves: neither a password
nor a Secrets Manager endpoint is needed. `LocalServer` is a server at an address. Both have the same grant:
it sets the function's variables of the store's address, and allows the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aws_cdk import Acknowledgment, ArnFormat, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk.components.function import Function
from cdk.components.security_group import SecurityGroup
from cdk.config import CacheConfig, Environment, reserved_percent

PORT = 6379

User = Literal["writer", "reader", "auditor", "scorer", "planner", "repairer"]
# The rights of each user: commands by category, over all keys or some. Without @dangerous: no FLUSHALL, KEYS,
# CONFIG, SHUTDOWN. The writer and the reader may ask for the store's time (TIME), the reader how full it is
# (INFO), for /health. The others have the keys and commands of one function each: audit_predictions,
# score_predictions, plan_backfill (and report_condition, which reads the same), mark_repaired (rights by key:
# Valkey 7.2).
ACCESS: Mapping[User, str] = {
    "writer": "on ~* -@all +@read +@write +@scripting +@connection +@transaction -@dangerous +time",
    "reader": "on ~* -@all +@read +@connection -@dangerous +info +time",
    "auditor": "on %R~predictions:* %R~gaps:* %R~symbols %W~heartbeat:* "
    "-@all +xrevrange +mget +set +@connection -@dangerous",
    "scorer": "on %R~outcomes:* %R~predictions:* %R~symbols %RW~archived:* %W~accuracy:* %W~heartbeat:* "
    "-@all +xrange +xrevrange +mget +set +@connection -@dangerous",
    "planner": "on %R~gaps:* -@all +mget +@connection -@dangerous",
    "repairer": "on %W~repaired:* -@all +set +@connection -@dangerous",
}


@dataclass(frozen=True)
class LocalServer:
    """A server on this machine, without TLS or users."""

    host: str
    port: int

    def grant(self, function: Function, user: User) -> None:
        """Set where the store is; it has no users."""
        function.set_variables(_address(host=self.host, port=self.port, tls=False))


class Cache(Construct):
    """An ElastiCache replication group of Valkey in the private subnets, with a user for each of its uses.

    Attaching the user group shuts the server's default user; a Valkey group needs none of its own. By AWS's
    own parameters (`volatile-lru`) a full cache would evict states; by these it refuses writes.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        config: CacheConfig,
        vpc: ec2.IVpc,
        subnets: list[ec2.ISubnet],
    ) -> None:
        super().__init__(scope, construct_id)
        prefix = f"tickcast-{environment.name}"
        self._users = {user: self._user(user, f"{prefix}-{user}") for user in ACCESS}
        users = elasticache.CfnUserGroup(
            self,
            "Users",
            engine="valkey",
            user_group_id=f"{prefix}-users",
            user_ids=[user.ref for user in self._users.values()],
        )
        security_group = SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description="The cache: entered from the functions granted, leaves nowhere",
        )
        self.connections = ec2.Connections(security_groups=[security_group], default_port=ec2.Port.tcp(PORT))
        self.group = elasticache.CfnReplicationGroup(
            self,
            "Group",
            replication_group_description=f"{prefix}: state, features, predictions",
            engine="valkey",
            engine_version="8.0",
            cache_parameter_group_name=self._parameters(config.node_type).ref,
            cache_node_type=config.node_type,
            num_cache_clusters=config.nodes,
            automatic_failover_enabled=config.nodes > 1,
            multi_az_enabled=config.nodes > 1,
            cache_subnet_group_name=elasticache.CfnSubnetGroup(
                self,
                "Subnets",
                description="The private subnets",
                subnet_ids=[subnet.subnet_id for subnet in subnets],
            ).ref,
            security_group_ids=[security_group.security_group_id],
            port=PORT,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            at_rest_encryption_enabled=True,
            user_group_ids=[users.ref],
            auto_minor_version_upgrade=True,
        )
        self._acknowledge(config.nodes)

    def grant(self, function: Function, user: User) -> None:
        """Let `function`, which must be in the VPC, connect as `user`."""
        account = self._users[user]
        function.connections.allow_to_default_port(self.connections, "the cache")
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["elasticache:Connect"],
            resource_arns=[
                Stack.of(self).format_arn(
                    service="elasticache",
                    resource=resource,
                    resource_name=name,
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                )
                for resource, name in (("replicationgroup", self.group.ref), ("user", account.ref))
            ],
        )
        function.set_variables(
            _address(
                host=self.group.attr_primary_end_point_address,
                port=PORT,
                tls=True,
                iam_user=account.user_id,
                cache_name=self.group.ref,
            )
        )

    def _parameters(self, node_type: str) -> elasticache.CfnParameterGroup:
        return elasticache.CfnParameterGroup(
            self,
            "Parameters",
            cache_parameter_group_family="valkey8",
            description="A full cache refuses writes; room for failover and backup",
            properties={
                "maxmemory-policy": "noeviction",
                "reserved-memory-percent": str(reserved_percent(node_type)),
            },
        )

    def _acknowledge(self, nodes: int) -> None:
        Validations.of(self.group).acknowledge(
            Acknowledgment(
                id="AwsSolutions-AEC5",
                reason="Another port than 6379 hides nothing: only two security groups can reach it at all.",
            ),
            Acknowledgment(
                id="AwsSolutions-AEC6",
                reason="IAM authentication by user group replaces the shared AUTH token the rule looks for.",
            ),
        )
        if nodes == 1:
            Validations.of(self.group).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-AEC4",
                    reason="One node by configuration: losing it costs this environment a minute of warm-up.",
                )
            )

    def _user(self, user: User, name: str) -> elasticache.CfnUser:
        return elasticache.CfnUser(
            self,
            user.title(),
            engine="valkey",
            # With IAM, a user's id and name must be equal.
            user_id=name,
            user_name=name,
            authentication_mode={"Type": "iam"},
            access_string=ACCESS[user],
        )


HotStore = Cache | LocalServer


def _address(*, host: str, port: int, tls: bool, iam_user: str = "", cache_name: str = "") -> dict[str, str]:
    """The variables of `tickcast.adapters.settings.RedisSettings`."""
    return {
        "REDIS_HOST": host,
        "REDIS_PORT": str(port),
        "REDIS_TLS": "1" if tls else "0",
        "REDIS_IAM_USER": iam_user,
        "REDIS_CACHE_NAME": cache_name,
    }
