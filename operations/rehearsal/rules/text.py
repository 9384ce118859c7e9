"""Names and descriptions: how long they may be, and of which characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from operations.rehearsal.finding import Rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import Resource, Templates


class Form(NamedTuple):
    """A regular expression of a whole text, and the same in words."""

    pattern: str
    says: str


class Limit(NamedTuple):
    """A property that holds text: `place` is its way from the properties, `[]` any item of a list."""

    kind: str
    place: str
    shortest: int
    longest: int
    form: Form
    source: str

    @property
    def property_name(self) -> str:
        return self.place.replace(".[]", "")

    @property
    def name(self) -> str:
        """Like EC2.SecurityGroup.GroupDescription."""
        return f"{self.kind.removeprefix('AWS::').replace('::', '.')}.{self.property_name}"


_EC2 = r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]*"
_BUCKET = (
    r"(?!\d+\.\d+\.\d+\.\d+$)(?!xn--|sthree-|amzn-s3-demo-)(?!.*\.\.)"
    r"[a-z0-9][a-z0-9.-]*[a-z0-9](?<!-s3alias)(?<!--ol-s3)"
)

ANY = Form(r"(?s:.*)", "any characters")
ASCII = Form(r"[\x20-\x7e]*", "printable ASCII characters")
LATIN = Form(r"[\t\n\r\x20-\x7e\xa1-\xff]*", "characters of Latin-1 (no typographic ones)")
NO_CONTROLS = Form(r"[^\x00-\x1f\x7f]+", "no control characters")
NO_SPACE = Form(r"\S+", "no white space")
PLAIN = Form(r"[a-zA-Z0-9_-]+", "letters a-z, digits, hyphens and underscores")
DOTTED = Form(r"[a-zA-Z0-9_.-]+", "letters a-z, digits, hyphens, underscores and dots")
HYPHENS = Form(r"[a-zA-Z0-9-]+", "letters a-z, digits and hyphens")
HYPHENED = Form(
    r"[a-zA-Z](-?[a-zA-Z0-9])*",
    "letters a-z, digits and single hyphens, the first a letter, the last no hyphen",
)

EC2 = Form(_EC2, "letters a-z, digits, spaces and ._-:/()#,@[]+=&;{}!$* (no apostrophe)")
EC2_NAME = Form(rf"(?!sg-){_EC2}", f"{EC2.says}, not sg- first")
IAM_NAME = Form(r"[a-zA-Z0-9_+=,.@-]+", "letters a-z, digits and +=,.@-_")
NAMESPACE = Form(r"[^:].*", "no colon first")
QUERY_ID = Form(r"[a-z][a-zA-Z0-9_]*", "letters, digits and underscores, the first a lower-case letter")
DIMENSION = Form(rf"(?!:){ASCII.pattern}", f"{ASCII.says}, no colon first")
LOG_GROUP = Form(r"(?!aws/)[.\-_/#A-Za-z0-9]+", "letters a-z, digits and .-_/#, not aws/ first")
LOG_FILTER = Form(r"[^:*]+", "no colon and no asterisk")
PATH_PART = Form(
    r"[a-zA-Z0-9._\-:,]+|\{[a-zA-Z0-9._\-:]+\+?\}", "letters a-z, digits and ._-:, or a name in braces"
)
USER_ID = Form(r"[a-zA-Z][a-zA-Z0-9-]*", "letters a-z, digits and hyphens, the first a letter")
SQL_NAME = Form(r"[a-zA-Z][a-zA-Z0-9_]*", "letters a-z, digits and underscores, the first a letter")
SUBNETS = Form(r"(?i:(?!default$)[a-z][a-z0-9._ -]*)", "letters, digits, spaces and ._-, not default")
SECRET = Form(
    r"[a-zA-Z0-9/_+=.@-]+(?<!-[a-zA-Z0-9]{6})",
    "letters a-z, digits and /_+=.@-, not a hyphen and six letters or digits at the end",
)
PARAMETER = Form(r"(?i:(?!/?(aws|ssm))[a-z0-9_.\-/]+)", "letters a-z, digits and _.-/, not aws or ssm first")
BUCKET = Form(_BUCKET, "lower-case letters, digits, dots and hyphens, none of S3's own prefixes and suffixes")
TOPIC = Form(r"[a-zA-Z0-9_-]+(\.fifo)?", PLAIN.says)
MACHINE = Form(
    r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]+",
    "no white space, brackets, wildcards, control or other special characters",
)


def _of(kind: str, source: str, *places: tuple[str, int, int, Form]) -> Iterator[Limit]:
    """The limits of a type that a page states: place, shortest, longest, form."""
    return (Limit(kind, place, shortest, longest, form, source) for place, shortest, longest, form in places)


LIMITS = (
    *_of(
        "AWS::EC2::SecurityGroup",
        pages.SECURITY_GROUP,
        ("GroupDescription", 1, 255, EC2),
        ("GroupName", 1, 255, EC2_NAME),
    ),
    *_of(
        "AWS::EC2::SecurityGroup",
        pages.SECURITY_RULE,
        ("SecurityGroupIngress.[].Description", 0, 255, EC2),
        ("SecurityGroupEgress.[].Description", 0, 255, EC2),
    ),
    *_of(
        "AWS::EC2::SecurityGroupIngress",
        pages.SECURITY_RULE,
        ("Description", 0, 255, EC2),
    ),
    *_of(
        "AWS::EC2::SecurityGroupEgress",
        pages.SECURITY_RULE,
        ("Description", 0, 255, EC2),
    ),
    *_of(
        "AWS::IAM::Role",
        pages.IAM_ROLE,
        ("RoleName", 1, 64, IAM_NAME),
        ("Description", 0, 1000, LATIN),
    ),
    *_of(
        "AWS::IAM::Role",
        pages.IAM_POLICY,
        ("Policies.[].PolicyName", 1, 128, IAM_NAME),
    ),
    *_of(
        "AWS::IAM::Policy",
        pages.IAM_POLICY,
        ("PolicyName", 1, 128, IAM_NAME),
    ),
    *_of(
        "AWS::IAM::ManagedPolicy",
        pages.IAM_MANAGED_POLICY,
        ("ManagedPolicyName", 1, 128, IAM_NAME),
        ("Description", 0, 1000, LATIN),
    ),
    *_of(
        "AWS::Lambda::Function",
        pages.FUNCTION,
        ("FunctionName", 1, 64, PLAIN),
        ("Description", 0, 256, ANY),
        ("Handler", 1, 128, NO_SPACE),
    ),
    *_of(
        "AWS::Lambda::LayerVersion",
        pages.LAYER,
        ("LayerName", 1, 140, PLAIN),
        ("Description", 0, 256, ANY),
        ("LicenseInfo", 0, 512, ANY),
    ),
    *_of(
        "AWS::Events::Rule",
        pages.EVENTS_RULE,
        ("Name", 1, 64, DOTTED),
        ("Description", 0, 512, ANY),
        ("ScheduleExpression", 1, 256, ANY),
    ),
    *_of(
        "AWS::Events::Rule",
        pages.EVENTS_TARGET,
        ("Targets.[].Id", 1, 64, DOTTED),
        ("Targets.[].Input", 0, 8192, ANY),
    ),
    *_of(
        "AWS::CloudWatch::Alarm",
        pages.ALARM,
        ("AlarmName", 1, 255, NO_CONTROLS),
        ("AlarmDescription", 0, 1024, ANY),
        ("MetricName", 1, 255, ASCII),
        ("Namespace", 1, 255, NAMESPACE),
        ("Metrics.[].Id", 1, 255, QUERY_ID),
        ("Metrics.[].Expression", 1, 2048, ANY),
        ("Dimensions.[].Name", 1, 255, DIMENSION),
        ("Dimensions.[].Value", 1, 1024, ASCII),
    ),
    *_of(
        "AWS::CloudWatch::Dashboard",
        pages.DASHBOARD,
        ("DashboardName", 1, 255, PLAIN),
    ),
    *_of(
        "AWS::Logs::LogGroup",
        pages.LOG_GROUP,
        ("LogGroupName", 1, 512, LOG_GROUP),
    ),
    *_of(
        "AWS::Logs::MetricFilter",
        pages.LOG_FILTER,
        ("FilterName", 1, 512, LOG_FILTER),
        ("FilterPattern", 0, 1024, ANY),
    ),
    *_of(
        "AWS::ApiGateway::Stage",
        pages.API_STAGE,
        ("StageName", 1, 128, PLAIN),
    ),
    *_of(
        "AWS::ApiGateway::Resource",
        pages.API_LIMITS,
        ("PathPart", 1, 1024, PATH_PART),
    ),
    *_of(
        "AWS::ApiGateway::ApiKey",
        pages.API_KEY,
        ("Value", 20, 128, ANY),
    ),
    *_of(
        "AWS::ElastiCache::ReplicationGroup",
        pages.CACHE_GROUP,
        ("ReplicationGroupId", 1, 40, HYPHENED),
    ),
    *_of(
        "AWS::ElastiCache::SubnetGroup",
        pages.CACHE_SUBNETS,
        ("CacheSubnetGroupName", 1, 255, HYPHENS),
    ),
    *_of(
        "AWS::ElastiCache::User",
        pages.CACHE_USER,
        ("UserId", 1, 40, USER_ID),
        ("UserName", 1, 120, ASCII),
    ),
    *_of(
        "AWS::ElastiCache::UserGroup",
        pages.CACHE_USER_GROUP,
        ("UserGroupId", 1, 40, USER_ID),
    ),
    *_of(
        "AWS::RDS::DBInstance",
        pages.DATABASE,
        ("DBInstanceIdentifier", 1, 63, HYPHENED),
        ("DBName", 1, 63, SQL_NAME),
        ("MasterUsername", 1, 63, SQL_NAME),
    ),
    *_of(
        "AWS::RDS::DBParameterGroup",
        pages.DATABASE_PARAMETERS,
        ("DBParameterGroupName", 1, 255, HYPHENED),
    ),
    *_of(
        "AWS::RDS::DBSubnetGroup",
        pages.DATABASE_SUBNETS,
        ("DBSubnetGroupName", 1, 255, SUBNETS),
    ),
    *_of(
        "AWS::SecretsManager::Secret",
        pages.SECRET,
        ("Name", 1, 512, SECRET),
        ("Description", 0, 2048, ANY),
    ),
    *_of(
        "AWS::SSM::Parameter",
        pages.PARAMETER,
        ("Name", 1, 1011, PARAMETER),
        ("Description", 0, 1024, ANY),
        ("Value", 1, 4096, ANY),
    ),
    *_of(
        "AWS::ECS::Cluster",
        pages.ECS_SERVICE,
        ("ClusterName", 1, 255, PLAIN),
    ),
    *_of(
        "AWS::ECS::Service",
        pages.ECS_SERVICE,
        ("ServiceName", 1, 255, PLAIN),
    ),
    *_of(
        "AWS::ECS::TaskDefinition",
        pages.ECS_TASK,
        ("Family", 1, 255, PLAIN),
        ("ContainerDefinitions.[].Name", 1, 255, PLAIN),
    ),
    *_of(
        "AWS::Kinesis::Stream",
        pages.STREAM,
        ("Name", 1, 128, DOTTED),
    ),
    *_of(
        "AWS::Kinesis::StreamConsumer",
        pages.STREAM_CONSUMER,
        ("ConsumerName", 1, 128, DOTTED),
    ),
    *_of(
        "AWS::S3::Bucket",
        pages.BUCKET_NAMES,
        ("BucketName", 3, 63, BUCKET),
    ),
    *_of(
        "AWS::S3::Bucket",
        pages.BUCKET_RULES,
        ("LifecycleConfiguration.Rules.[].Id", 1, 255, ANY),
    ),
    *_of(
        "AWS::SNS::Topic",
        pages.TOPIC,
        ("TopicName", 1, 256, TOPIC),
    ),
    *_of(
        "AWS::SNS::Topic",
        pages.TOPIC_LIMITS,
        ("DisplayName", 0, 100, ANY),
    ),
    *_of(
        "AWS::StepFunctions::StateMachine",
        pages.STATE_MACHINE,
        ("StateMachineName", 1, 80, MACHINE),
    ),
)


def texts_at(value: Any, names: list[str]) -> Iterator[Any]:
    """What is at the place, any number of times."""
    if not names:
        yield value
    elif names[0] == "[]":
        for item in value if isinstance(value, list) else ():
            yield from texts_at(item, names[1:])
    elif isinstance(value, dict) and names[0] in value:
        yield from texts_at(value[names[0]], names[1:])


def wrong(limit: Limit, text: str) -> str:
    """What is wrong with `text`, in words; empty if nothing is."""
    form = limit.form
    if len(text) < limit.shortest:
        return f"is {text!r}, of {len(text)} characters; at least {limit.shortest} are needed"
    if len(text) > limit.longest:
        return f"has {len(text)} characters; {limit.longest} are allowed: {text[:60]!r} …"
    if re.fullmatch(form.pattern, text):
        return ""
    refused = sorted({one for one in text if not re.fullmatch(form.pattern, f"a{one}a")})
    which = f"has {' '.join(refused)} , refused" if refused else "is of a form that is refused"
    return f"{text[:120]!r} {which}; allowed: {form.says}"


def _rule(limit: Limit) -> Rule:
    def check(templates: Templates) -> Iterator[tuple[Resource | str, str, str]]:
        for resource in templates.resources(limit.kind):
            for value in texts_at(resource.properties, limit.place.split(".")):
                if isinstance(value, str) and (problem := wrong(limit, value)):
                    yield resource, limit.property_name, problem

    return Rule(
        limit.name,
        f"{limit.shortest} to {limit.longest} characters; {limit.form.says}",
        limit.source,
        (limit.kind,),
        f"change the text of {limit.place.rpartition('.')[2]}",
        check,
        place=limit.place,
    )


RULES = tuple(_rule(limit) for limit in LIMITS)
