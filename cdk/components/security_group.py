"""A security group."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from constructs import Construct


class SecurityGroup(ec2.SecurityGroup):
    """No traffic in or out but `https`, and what is allowed explicitly."""

    def __init__(
        self, scope: Construct, construct_id: str, *, vpc: ec2.IVpc, description: str, https: str = ""
    ) -> None:
        """`https`: what HTTPS is for, which is then allowed to any address."""
        super().__init__(scope, construct_id, vpc=vpc, description=description, allow_all_outbound=False)
        if https:
            self.allow_out(443, https)

    def allow_out(self, port: int, description: str) -> None:
        self.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), description)
