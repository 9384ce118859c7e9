"""What costs something after the stacks are gone: what they retain, and what services made by themselves.

Everything is found in the account by the names that CloudFormation and the services give it, which begin with
the environment's; nothing of another environment or application is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from operations.deployment.account import ENVIRONMENTS, Account
from operations.deployment.foundation import BOOTSTRAP_STACK
from operations.failures import OperationFailed

_PAGE = 1000  # objects a request deletes at most
_IMAGES = 100  # images a request deletes at most


class Leftover(NamedTuple):
    """`is_data`: kept with `keep_data`. `is_going`: AWS is deleting it, and charges nothing any more."""

    what: str
    is_data: bool
    delete: Callable[[], Any]
    is_going: bool = False


def leftovers(account: Account) -> list[Leftover]:
    """All there is; data last."""
    kinds = (_log_groups, _images, _secrets, _streams, _buckets, _snapshots, _backups)
    return [found for kind in kinds for found in kind(account)]


def kept(account: Account) -> list[str]:
    """What is left because `keep_data` says so. Without it nothing is: what is still listed then was deleted
    and takes a while to disappear from AWS's lists."""
    if not account.environment.keep_data:
        return []
    return [each.what for each in leftovers(account) if each.is_data and not each.is_going]


# -- the bucket --------------------------------------------------------------------------------------------


def data_buckets(account: Account) -> list[str]:
    """The buckets of the environment's data stack, retained ones included."""
    prefix = f"{account.stack_name('data')}-"
    buckets = account.client("s3").list_buckets()["Buckets"]
    return [each["Name"] for each in buckets if each["Name"].startswith(prefix)]


def is_empty(account: Account, bucket: str) -> bool:
    """Whether a bucket has neither objects nor earlier versions of them."""
    found = account.client("s3").list_object_versions(Bucket=bucket, MaxKeys=1)
    return not (found.get("Versions") or found.get("DeleteMarkers"))


def empty(account: Account, bucket: str) -> int:
    """Delete all versions of all objects, and uploads that were never completed. Returns the number of
    versions."""
    s3, count = account.client("s3"), 0
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    pages = s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": _PAGE}
    )
    for page in pages:
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in versions]
        if not objects:
            continue
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", []):
            raise ClientError({"Error": error}, "DeleteObjects")
        count += len(objects)
    return count


def _buckets(account: Account) -> Iterator[Leftover]:
    for bucket in data_buckets(account):
        yield Leftover(f"bucket {bucket}", True, partial(_delete_bucket, account, bucket))


def _delete_bucket(account: Account, bucket: str) -> None:
    empty(account, bucket)
    account.client("s3").delete_bucket(Bucket=bucket)


# -- what only bears the environment's name ----------------------------------------------------------------


def _log_groups(account: Account) -> Iterator[Leftover]:
    """Those of functions that the CDK adds, of Container Insights, of the API's executions and of RDS are
    made by the services, and kept indefinitely."""
    own, logs = f"tickcast-{account.name}-", account.client("logs")
    prefixes = [
        *(own, f"/aws/lambda/{own}", f"/aws/vendedlogs/states/{own}", f"/aws/ecs/containerinsights/{own}"),
        f"/aws/rds/instance/{own}",
        *(f"API-Gateway-Execution-Logs_{api}/" for api in _deleted(account, "AWS::ApiGateway::RestApi")),
    ]
    for prefix in prefixes:
        pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
        for page in pages:
            for group in page["logGroups"]:
                name = group["logGroupName"]
                yield Leftover(f"log group {name}", False, partial(logs.delete_log_group, logGroupName=name))


def _secrets(account: Account) -> Iterator[Leftover]:
    """Those in their recovery window too, which serves no purpose in an environment that is thrown away."""
    secrets = account.client("secretsmanager")
    pages = secrets.get_paginator("list_secrets").paginate(
        IncludePlannedDeletion=True, Filters=[{"Key": "tag-key", "Values": ["application"]}]
    )
    ours = {("application", "tickcast"), ("environment", account.name)}
    for page in pages:
        for each in page["SecretList"]:
            # RDS deletes its own.
            if not each.get("OwningService") and ours <= {(t["Key"], t["Value"]) for t in each["Tags"]}:
                remove = partial(secrets.delete_secret, SecretId=each["ARN"], ForceDeleteWithoutRecovery=True)
                yield Leftover(f"secret {each['Name']}", True, remove, is_going="DeletedDate" in each)


def _streams(account: Account) -> Iterator[Leftover]:
    kinesis, prefix = account.client("kinesis"), f"{account.stack_name('data')}-"
    for page in kinesis.get_paginator("list_streams").paginate():
        for name in page["StreamNames"]:
            if name.startswith(prefix):
                remove = partial(kinesis.delete_stream, StreamName=name, EnforceConsumerDeletion=True)
                yield Leftover(f"stream {name}", True, remove)


def _snapshots(account: Account) -> Iterator[Leftover]:
    rds, prefix = account.client("rds"), f"{account.stack_name('data')}-"
    for page in rds.get_paginator("describe_db_snapshots").paginate(SnapshotType="manual"):
        for each in page["DBSnapshots"]:
            name = each["DBSnapshotIdentifier"]
            if name.startswith(prefix) or each.get("DBInstanceIdentifier", "").startswith(prefix):
                remove = partial(rds.delete_db_snapshot, DBSnapshotIdentifier=name)
                yield Leftover(f"snapshot {name}", True, remove)


def _backups(account: Account) -> Iterator[Leftover]:
    rds, prefix = account.client("rds"), f"{account.stack_name('data')}-"
    for page in rds.get_paginator("describe_db_instance_automated_backups").paginate():
        for each in page["DBInstanceAutomatedBackups"]:
            if each["DBInstanceIdentifier"].startswith(prefix) and each.get("Status") == "retained":
                remove = partial(rds.delete_db_instance_automated_backup, DbiResourceId=each["DbiResourceId"])
                yield Leftover(f"automated backup of {each['DBInstanceIdentifier']}", True, remove)


# -- images ------------------------------------------------------------------------------------------------


def _images(account: Account) -> Iterator[Leftover]:
    """The images of all revisions of our task definitions. Both environments may have built the same one:
    what the other still runs stays."""
    others = [name for name in ENVIRONMENTS if name != account.name]
    used = {image for name in others for image in _images_of(account, name, ["ACTIVE"])}
    ours = _images_of(account, account.name, ["ACTIVE", "INACTIVE"]) - used
    for repository in sorted({image.partition(":")[0] for image in ours}):
        tags = [tag for tag in _tags_in(account, repository) if f"{repository}:{tag}" in ours]
        if tags:
            remove = partial(_delete_images, account, repository, tags)
            yield Leftover(f"{len(tags)} images in {repository}", False, remove)


def _delete_images(account: Account, repository: str, tags: list[str]) -> None:
    """Raises `OperationFailed` naming what could not be deleted, once all the others are."""
    ecr, failed = account.client("ecr"), []
    for at in range(0, len(tags), _IMAGES):
        ids = [{"imageTag": tag} for tag in tags[at : at + _IMAGES]]
        answer = ecr.batch_delete_image(repositoryName=repository, imageIds=ids)
        failed += [
            f"{each.get('imageId', {}).get('imageTag', 'an image')}: "
            f"{each.get('failureReason') or each.get('failureCode')}"
            for each in answer.get("failures", [])
            if each.get("failureCode") != "ImageNotFound"  # it is gone, which is what was wanted
        ]
    if failed:
        raise OperationFailed("\n  ".join([f"images in {repository} could not be deleted", *failed]))


def _images_of(account: Account, environment: str, states: list[str]) -> set[str]:
    """The images (repository:tag) of an environment's task definitions in the account's registry."""
    ecs, found = account.client("ecs"), set()
    for family in _families(account, f"tickcast{environment}app"):
        for state in states:
            pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix=family, status=state)
            for arn in (arn for page in pages for arn in page["taskDefinitionArns"]):
                task = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
                for container in task["containerDefinitions"]:
                    host, _, image = container["image"].partition("/")
                    if ".dkr.ecr." in host:
                        found.add(image)
    return found


def _families(account: Account, prefix: str) -> list[str]:
    pages = account.client("ecs").get_paginator("list_task_definition_families")
    listed = pages.paginate(familyPrefix=prefix, status="ALL")
    return [family for page in listed for family in page["families"]]


def _tags_in(account: Account, repository: str) -> list[str]:
    ecr = account.client("ecr")
    try:
        pages = list(ecr.get_paginator("list_images").paginate(repositoryName=repository))
    except ecr.exceptions.RepositoryNotFoundException:
        return []
    return [each["imageTag"] for page in pages for each in page["imageIds"] if "imageTag" in each]


def _deleted(account: Account, kind: str) -> set[str]:
    """The physical ids of a kind of resource in the environment's stacks that were deleted lately."""
    return {
        resource.physical_id
        for stack in account.deleted_stacks()
        for resource in account.resources(stack)
        if resource.kind == kind and resource.physical_id
    }


STAYS = f"{BOOTSTRAP_STACK} with its bucket stays, for other apps of the account may deploy with it"
