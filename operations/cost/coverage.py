"""Which line of the estimate has the price of a type of resource, or why it has none.

A type that is in neither table is an error: what nobody has priced must not be missing from the sum without
notice.
"""

from __future__ import annotations

from collections.abc import Iterable

from operations.cost.inventory import Resource
from operations.failures import OperationFailed

# By type: the lines in which it is (`operations.cost.lines`).
PRICED = {
    "AWS::ApiGateway::RestApi": ("api_requests", "data_out"),
    "AWS::ApiGateway::Stage": ("api_metrics", "logs_ingested", "traces"),
    "AWS::CloudWatch::Alarm": ("alarms",),
    "AWS::CloudWatch::Dashboard": ("dashboards",),
    "AWS::EC2::FlowLog": ("flow_logs",),
    "AWS::ECS::Cluster": ("container_insights",),
    "AWS::ECS::Service": ("ingest_cpu", "ingest_memory", "ingest_addresses"),
    "AWS::ECS::TaskDefinition": ("ingest_cpu", "ingest_memory", "images"),
    "AWS::ElastiCache::ReplicationGroup": ("cache_nodes", "data_between_zones"),
    "AWS::Kinesis::Stream": ("stream_shards", "stream_puts", "stream_retention", "stream_keys"),
    "AWS::Kinesis::StreamConsumer": ("fan_out_shards", "fan_out_data"),
    "AWS::Lambda::EventSourceMapping": ("predict_requests", "archive_duration"),
    "AWS::Lambda::Function": (
        *("predict_requests", "predict_duration", "archive_duration", "serve_duration"),
        *("scheduled_duration", "custom_metrics", "traces", "signal_requests", "signal_duration"),
    ),
    "AWS::Logs::LogGroup": ("logs_ingested", "logs_stored"),
    "AWS::RDS::DBInstance": ("database_instance", "database_storage", "database_backups"),
    "AWS::S3::Bucket": (
        *("lake_storage", "lake_cheaper_storage", "lake_writes", "lake_reads"),
        *("signal_writes", "signal_events"),
    ),
    "AWS::SecretsManager::Secret": ("secrets",),
    "AWS::StepFunctions::StateMachine": ("express_workflow", "standard_workflow"),
}

# By type: why it costs nothing.
FREE = {
    "AWS::ApiGateway::Account": "a setting",
    "AWS::ApiGateway::ApiKey": "API Gateway bills requests alone",
    "AWS::ApiGateway::Deployment": "API Gateway bills requests alone",
    "AWS::ApiGateway::GatewayResponse": "API Gateway bills requests alone",
    "AWS::ApiGateway::Method": "API Gateway bills requests alone; metrics by method are the stage's",
    "AWS::ApiGateway::RequestValidator": "API Gateway bills requests alone",
    "AWS::ApiGateway::Resource": "API Gateway bills requests alone",
    "AWS::ApiGateway::UsagePlan": "API Gateway bills requests alone",
    "AWS::ApiGateway::UsagePlanKey": "API Gateway bills requests alone",
    "AWS::EC2::InternetGateway": "only data out to the internet is billed: data_out",
    "AWS::EC2::Route": "VPCs are free",
    "AWS::EC2::RouteTable": "VPCs are free",
    "AWS::EC2::SecurityGroup": "VPCs are free",
    "AWS::EC2::SecurityGroupEgress": "VPCs are free",
    "AWS::EC2::SecurityGroupIngress": "VPCs are free",
    "AWS::EC2::Subnet": "VPCs are free",
    "AWS::EC2::SubnetRouteTableAssociation": "VPCs are free",
    "AWS::EC2::VPC": "VPCs are free",
    "AWS::EC2::VPCEndpoint": "a gateway endpoint (S3); an interface endpoint would be refused here",
    "AWS::EC2::VPCGatewayAttachment": "VPCs are free",
    "AWS::ECS::ClusterCapacityProviderAssociations": "tasks are billed",
    "AWS::ElastiCache::ParameterGroup": "nodes are billed",
    "AWS::ElastiCache::SubnetGroup": "nodes are billed",
    "AWS::ElastiCache::User": "nodes are billed",
    "AWS::ElastiCache::UserGroup": "nodes are billed",
    "AWS::Events::Rule": "rules on a schedule and events of AWS's services are free, but for the bucket's",
    "AWS::IAM::ManagedPolicy": "IAM is free",
    "AWS::IAM::Policy": "IAM is free",
    "AWS::IAM::Role": "IAM is free",
    "AWS::Lambda::EventInvokeConfig": "a setting",
    "AWS::Lambda::LayerVersion": "within the 75 GB of code that an account has for nothing",
    "AWS::Lambda::Permission": "a setting",
    "AWS::RDS::DBParameterGroup": "the instance is billed",
    "AWS::RDS::DBSubnetGroup": "the instance is billed",
    "AWS::S3::BucketPolicy": "a setting",
    "AWS::SNS::Subscription": "the first 1,000 mails a month are free, and alarms send a few",
    "AWS::SNS::Topic": "the first million requests and 1,000 mails a month are free, and alarms send a few",
    "AWS::SNS::TopicPolicy": "a setting",
    "AWS::SQS::Queue": "the first million requests a month are free, and few signals are lost",
    "AWS::SQS::QueuePolicy": "a setting",
}


def check(resources: Iterable[Resource]) -> None:
    """Raises `OperationFailed` naming each resource that no line covers."""
    unknown = [each for each in resources if each.type not in PRICED.keys() | FREE.keys()]
    unknown += [each for each in resources if _is_interface_endpoint(each)]
    if unknown:
        names = ", ".join(sorted(f"{each.logical_id} ({each.type})" for each in unknown))
        raise OperationFailed(
            f"no line of the estimate covers {names}: price it in operations/cost/lines.py, or say in "
            "operations/cost/coverage.py why it is free"
        )


def _is_interface_endpoint(resource: Resource) -> bool:
    return (
        resource.type == "AWS::EC2::VPCEndpoint"
        and resource.properties.get("VpcEndpointType", "Gateway") != "Gateway"
    )
