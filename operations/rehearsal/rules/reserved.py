"""Names that AWS or an engine keeps for itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from operations.rehearsal.finding import rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

# Those that Lambda sets and nobody may ("Reserved environment variables").
VARIABLES = {
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
}
# What RDS and PostgreSQL refuse as the master user or the database: users of their own and words that its
# grammar reserves ("SQL Key Words" in PostgreSQL's manual).
DATABASE_USERS = {"admin", "rdsadmin", "rds_superuser", "rdsrepladmin", "rdstopmgr", "replication", "public"}
DATABASES = {"db", "rdsadmin", "template0", "template1"}
_WORDS = """all analyse analyze and any array as asc asymmetric both case cast check collate column constraint
    create current_catalog current_date current_role current_time current_timestamp current_user default
    deferrable desc distinct do else end except false fetch for foreign from grant group having in initially
    intersect into lateral leading limit localtime localtimestamp not null offset on only or order placing
    primary references returning select session_user some symmetric system_user table then to trailing true
    union unique user using variadic when where window with"""
SQL_WORDS = frozenset(_WORDS.split())
TAGS = 50
TAG_KEY, TAG_VALUE = 128, 256


@rule(
    "reserved-variables",
    "no variable of a function is one that Lambda reserves, and each name has two or more letters, digits "
    "and underscores, the first a letter",
    source=pages.FUNCTION_VARIABLES,
    kinds=("AWS::Lambda::Function",),
    remedy="rename the variable in `settings.py` and `cdk/variables.py`",
)
def variables(templates: Templates) -> Found:
    for function in templates.resources("AWS::Lambda::Function"):
        for name in function.properties.get("Environment", {}).get("Variables", {}):
            if name in VARIABLES:
                yield function, f"Environment {name}", "is a variable that Lambda sets itself"
            elif not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]+", name):
                yield function, f"Environment {name}", "is not a name that Lambda accepts"


def _tags(resource: Resource) -> list[tuple[str, str]]:
    """The tags of a resource: some types have a list, others an object."""
    given: Any = resource.properties.get("Tags", [])
    if isinstance(given, dict):
        return [(str(key), str(value)) for key, value in given.items()]
    return [(str(tag["Key"]), str(tag.get("Value", ""))) for tag in given]


@rule(
    "tags",
    f"a resource has at most {TAGS} tags, none of a key that begins with aws:, keys of at most {TAG_KEY} and "
    f"values of at most {TAG_VALUE} letters, digits, spaces and _.:/=+-@",
    source=pages.TAGS,
    remedy="change the tag",
)
def tags(templates: Templates) -> Found:
    for resource in templates.resources():
        given = _tags(resource)
        if len(given) > TAGS:
            yield resource, "Tags", f"are {len(given)}; {TAGS} are allowed"
        for key, value in given:
            if key.lower().startswith("aws:"):
                yield resource, f"tag {key}", "begins with aws:, which AWS keeps for itself"
            elif not 1 <= len(key) <= TAG_KEY or len(value) > TAG_VALUE:
                yield resource, f"tag {key[:40]}", f"has {len(key)} characters and its value {len(value)}"
            elif refused := {one for one in key + value if not (one.isalnum() or one in " _.:/=+-@")}:
                yield resource, f"tag {key}", f"has {' '.join(sorted(refused))} , refused"


@rule(
    "reserved-database-names",
    "the master user and the database have no name of RDS's own nor a reserved word of PostgreSQL",
    source=pages.DATABASE,
    kinds=("AWS::RDS::DBInstance",),
    remedy="take another name",
)
def database(templates: Templates) -> Found:
    for instance in templates.resources("AWS::RDS::DBInstance"):
        for place, kept in (("MasterUsername", DATABASE_USERS), ("DBName", DATABASES)):
            name = str(instance.properties.get(place, "")).lower()
            if name in kept | SQL_WORDS or name.startswith("pg_"):
                yield instance, place, f"is {name!r}, which the engine keeps for itself"


@rule(
    "reserved-namespaces",
    "nothing of ours writes metrics into a namespace that begins with AWS/",
    source=pages.ALARM,
    kinds=("AWS::Logs::MetricFilter",),
    remedy="take a namespace of your own",
)
def namespaces(templates: Templates) -> Found:
    for written in templates.resources("AWS::Logs::MetricFilter"):
        for one in written.properties.get("MetricTransformations", ()):
            if str(one.get("MetricNamespace", "")).startswith("AWS/"):
                yield written, "MetricTransformations", "writes into a namespace that AWS keeps for itself"


@rule(
    "reserved-roles",
    "no role is named like one that AWS makes for a service",
    source=pages.IAM_ROLE,
    kinds=("AWS::IAM::Role",),
    remedy="take another name or path",
)
def roles(templates: Templates) -> Found:
    for role in templates.resources("AWS::IAM::Role"):
        name, path = str(role.properties.get("RoleName", "")), str(role.properties.get("Path", "/"))
        if name.startswith(("AWSServiceRoleFor", "AWSReserved")) or path.startswith("/aws-reserved"):
            yield role, "RoleName", f"is {path}{name}, which AWS keeps for itself"


@rule(
    "reserved-cache-names",
    "no parameter group or subnet group of the cache is called default, and no Valkey user either",
    source=pages.CACHE_USER,
    kinds=("AWS::ElastiCache::User", "AWS::ElastiCache::SubnetGroup"),
    remedy="take another name",
)
def cache(templates: Templates) -> Found:
    for resource in templates.resources(*cache.kinds):
        for place in ("UserId", "CacheSubnetGroupName"):
            if str(resource.properties.get(place, "")).lower() == "default":
                yield resource, place, "is default, which ElastiCache makes itself"


@rule(
    "reserved-stages",
    "no stage is called test-invoke-stage",
    source=pages.API_STAGE,
    kinds=("AWS::ApiGateway::Stage",),
    remedy="take another name",
)
def stages(templates: Templates) -> Found:
    for stage in templates.resources("AWS::ApiGateway::Stage"):
        if stage.properties.get("StageName") == "test-invoke-stage":
            yield stage, "StageName", "is test-invoke-stage, which the console uses"


@rule(
    "reserved-events",
    "no pattern expects events of ours from a source that begins with aws., and rules on a schedule are on "
    "the default bus",
    source=pages.EVENTS_RULE,
    kinds=("AWS::Events::Rule",),
    remedy="put the rule on the default bus",
)
def events(templates: Templates) -> Found:
    for one in templates.resources("AWS::Events::Rule"):
        bus = one.properties.get("EventBusName", "default")
        if "ScheduleExpression" in one.properties and bus != "default":
            yield one, "EventBusName", f"is {bus}; a rule on a schedule works on the default bus alone"


RULES = (variables, tags, database, namespaces, roles, cache, stages, events)
