"""The network: one that costs nothing by existing (docs/adr/0004-no-nat.md)."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from cdk.components.log_group import LogGroup
from cdk.config import Environment, NetworkConfig


class NetworkStack(Stack):
    """A VPC over two zones: public subnets for the ingest task, isolated ones for functions and stores.

    No NAT gateway and no interface endpoint. The isolated subnets reach S3 through its gateway endpoint,
    which is free, and nothing else outside.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, environment: Environment, config: NetworkConfig
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env={"region": environment.region},
            termination_protection=environment.keep_data,
            description="tickcast: the network",
        )
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            max_azs=2,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public",
                    subnet_type=ec2.SubnetType.PUBLIC,
                    cidr_mask=24,
                    # The ingest task asks for its address itself; nothing else gets one by accident.
                    map_public_ip_on_launch=False,
                ),
                ec2.SubnetConfiguration(
                    name="private", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
                ),
            ],
            gateway_endpoints={
                "S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)
            },
        )
        for index, zone in enumerate(config.zone_ids or ()):
            self._place(index, zone)
        if config.flow_logs:
            flow_log = self.vpc.add_flow_log(
                "Rejected",
                destination=ec2.FlowLogDestination.to_cloud_watch_logs(
                    LogGroup(self, "FlowLog", retention=config.flow_logs)
                ),
                traffic_type=ec2.FlowLogTrafficType.REJECT,
            )
            assert flow_log.iam_role
            # Its policy too: the construct waits for the role alone.
            flow_log.node.find_child("FlowLog").node.add_dependency(flow_log.iam_role)
        else:
            Validations.of(self.vpc).acknowledge(
                Acknowledgment(
                    id="AwsSolutions-VPC7",
                    reason="No security group lets anything in from outside; this environment saves the "
                    "price of the log, and `network.flow_logs` switches it on.",
                )
            )

    def _place(self, index: int, zone: str) -> None:
        """Put the subnets of the zone `index` into the one of this id. The construct knows zones only by
        name, and an account's names are its own."""
        for subnets in (self.vpc.public_subnets, self.vpc.isolated_subnets):
            resource = subnets[index].node.default_child
            assert isinstance(resource, ec2.CfnSubnet)
            resource.availability_zone = None
            resource.availability_zone_id = zone
