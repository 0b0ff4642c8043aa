"""The rights in cluster/iam are those of the calls that are made, no fewer and no more.

Storage's calls are read from its code. Those of `ray up` and of a head are Ray's own, made to a stand-in for EC2 (moto)
and noted down; Ray's code is what the laptop and the head run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.cluster.files import ROOT, read
from tests.cluster.test_iam import actions, policy
from tests.cluster.test_ray_up import check_ray_up
from tests.test_layers import imports, modules

# S3's calls and the right that each asks for.
RIGHTS = {
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "head_bucket": "s3:ListBucket",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "delete_object": "s3:DeleteObject",
}
_PARTS = {"storage.multipartUploads.create", "storage.objects.create"}
# The same in Cloud Storage, by its table of the permissions of XML methods; `delete` is for writing over what is there.
# Reading is a role of its own, roles/storage.objectViewer. It has not what asking for a bucket takes; storage asks for
# one only to say in a message that it is not there, and takes a refusal for an answer.
GOOGLES = {
    "put_object": {"storage.objects.create", "storage.objects.delete"},
    "create_multipart_upload": _PARTS,
    "upload_part": _PARTS,
    "complete_multipart_upload": _PARTS | {"storage.objects.delete"},
    "abort_multipart_upload": {"storage.multipartUploads.abort"},
    "delete_object": {"storage.objects.delete"},
}


def calls_of_s3() -> set[str]:
    """Return the calls that storage makes of its client."""
    return {
        node.func.attr
        for path in (ROOT / "system/storage").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "client()"
    }


def test_nobody_but_storage_speaks_to_a_cloud() -> None:
    users = {
        module for module, path in modules() if {"boto3", "botocore"} & {each.split(".")[0] for each in imports(path)}
    }
    assert users == {"system.storage.s3", "system.storage.s3_errors", "system.storage.s3_upload"}


def test_a_run_has_the_rights_of_its_calls_and_no_others() -> None:
    made = calls_of_s3()
    assert made == RIGHTS.keys()
    assert set(actions("aws-run.json")) == {RIGHTS[call] for call in made}


def test_a_run_on_google_has_the_rights_of_its_calls_that_write_and_no_others() -> None:
    assert set(read("iam/gcp-run.yaml")["includedPermissions"]) == set().union(*GOOGLES.values())
    reading = {"get_object", "head_object", "head_bucket", "list_objects_v2"}
    assert GOOGLES.keys() == calls_of_s3() - reading


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """A stand-in for EC2 in which nothing is but the security group of docs/clusters.md, and the calls made to it."""
    from ray.autoscaler._private.aws import config, node_provider, utils

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray puts the key pair there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
    made: list[tuple[str, dict[str, Any]]] = []
    caches = (utils.resource_cache, utils.client_cache, config._get_subnets_or_die)
    with mock_aws():
        session = boto3.Session(region_name="us-west-2")
        ec2, iam = session.client("ec2"), session.client("iam")
        for name in ("tubelet-head", "tubelet-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        group = ec2.create_security_group(GroupName="tubelet-cluster", Description="tubelet")["GroupId"]
        rule = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])

        def note(params: dict[str, Any], model: Any, **_: Any) -> None:
            made.append((f"{model.service_model.service_name}:{model.name}", params))

        session.events.register("provide-client-params.*.*", note)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
        for each in caches:
            each.cache_clear()
        yield made
    for each in caches:
        each.cache_clear()


def rights_of(made: list[tuple[str, dict[str, Any]]]) -> set[str]:
    """Return the rights that calls ask for: their own, and those of what they carry."""
    out = {name for name, _ in made}
    started = [params for name, params in made if name == "ec2:RunInstances"]
    out |= {"iam:PassRole" for params in started if "IamInstanceProfile" in params}
    return out | {"ec2:CreateTags" for params in started if params.get("TagSpecifications")}


def condition(name: str, sid: str) -> dict[str, Any]:
    """Return what a statement of a policy asks to be equal."""
    (statement,) = [each for each in policy(name)["Statement"] if each["Sid"] == sid]
    equal: dict[str, Any] = statement["Condition"]["StringEquals"]
    return equal


def check_start(params: dict[str, Any], name: str, sid: str) -> None:
    """Check what a machine is started with against the conditions of a policy."""
    wanted = condition(name, sid)
    types = wanted["ec2:InstanceType"]
    assert params["InstanceType"] in ([types] if isinstance(types, str) else types)
    tags = {each["Key"]: each["Value"] for spec in params["TagSpecifications"] for each in spec["Tags"]}
    assert tags["ray-cluster-name"] == wanted["aws:RequestTag/ray-cluster-name"]
    assert {spec["ResourceType"] for spec in params["TagSpecifications"]} == {"instance"}
    (passed,) = [each["Resource"] for each in policy(name)["Statement"] if each["Action"] == "iam:PassRole"]
    assert passed.endswith(f":role/{params['IamInstanceProfile']['Name']}")


def tags(kind: str, group: str) -> dict[str, str]:
    return {"ray-node-kind": kind, "ray-node-name": f"ray-tubelet-{kind}", "ray-user-node-type": group}


@pytest.mark.slow  # what EC2 says of all of its machines
def test_who_calls_ray_up_and_the_head_have_the_rights_of_what_ray_calls_and_no_others(
    noted: list[tuple[str, dict[str, Any]]],
) -> None:
    from ray.autoscaler._private.aws import node_provider

    AWSNodeProvider: Any = node_provider.AWSNodeProvider  # noqa: N806  untyped
    config = AWSNodeProvider.fillout_available_node_types_resources(check_ray_up(read("aws.yaml")))
    config = AWSNodeProvider.bootstrap_config(config)
    types = config["available_node_types"]

    launcher = AWSNodeProvider(config["provider"], config["cluster_name"])
    assert launcher.non_terminated_nodes({}) == []
    launcher.create_node(types["head"]["node_config"], tags("head", "head"), 1)
    (head,) = launcher.non_terminated_nodes({})
    launcher.set_node_tags(head, {"ray-node-status": "up-to-date"})
    assert launcher.external_ip(head)
    by_laptop = list(noted)

    noted.clear()
    autoscaler = AWSNodeProvider(config["provider"], config["cluster_name"])
    for group in ("decode", "train", "flow"):
        autoscaler.create_node(types[group]["node_config"], tags("worker", group), 1)
    workers = autoscaler.non_terminated_nodes({"ray-node-kind": "worker"})
    assert len(workers) == 3
    autoscaler.set_node_tags(workers[0], {"ray-node-status": "up-to-date"})
    autoscaler.terminate_nodes(workers)
    by_head = list(noted)

    noted.clear()
    launcher.terminate_nodes(launcher.non_terminated_nodes({}))  # ray down
    by_laptop += noted

    assert rights_of(by_laptop) == set(actions("aws-launcher.json"))
    assert rights_of(by_head) == set(actions("aws-head.json"))
    for made, name, sid in (
        (by_laptop, "aws-launcher.json", "StartTheHead"),
        (by_head, "aws-head.json", "StartTheClustersMachines"),
    ):
        for params in (params for call, params in made if call == "ec2:RunInstances"):
            check_start(params, name, sid)
    (key,) = [params["KeyName"] for call, params in by_laptop if call == "ec2:CreateKeyPair"]
    (named,) = [
        each["Resource"] for each in policy("aws-launcher.json")["Statement"] if each["Sid"] == "MakeRaysKeyPair"
    ]
    assert fnmatchcase(key, named.rpartition("/")[2])


def test_who_calls_ray_up_starts_heads_alone_and_gives_them_the_heads_role() -> None:
    config = read("aws.yaml")
    head = config["available_node_types"][config["head_node_type"]]["node_config"]
    wanted = condition("aws-launcher.json", "StartTheHead")
    assert wanted["ec2:InstanceType"] == head["InstanceType"]
    assert wanted["aws:RequestTag/ray-cluster-name"] == config["cluster_name"]
    assert head["IamInstanceProfile"]["Name"] == "tubelet-head"


def test_who_calls_ray_up_cannot_open_a_wall() -> None:
    # Ray makes a missing group with SSH open to everyone; without these rights it says so instead.
    assert not [each for each in actions("aws-launcher.json") if re.search("SecurityGroup(Ingress)?$", each)]
