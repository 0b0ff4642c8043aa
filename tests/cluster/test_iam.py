"""Rights are well-formed, and enough for what a run does with its bucket, and not for more.

The run's policy is tried by moto, which asks it about each request of our own storage layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.policy_validation import IAMPolicyDocumentValidator, IAMTrustPolicyDocumentValidator

from system import storage
from system.storage.s3 import forget_client
from tests.cluster.files import CLUSTER, read
from tests.cluster.test_ray_up import check_google

IAM = CLUSTER / "iam"
POLICIES = ("aws-run.json", "aws-token.json", "aws-head.json", "aws-launcher.json")
TRUST = ("aws-trust-ec2.json", "aws-trust-eks.json")
BUCKET = "s3://your-bucket"


def policy(name: str) -> Any:
    """Parse a policy."""
    return json.loads((IAM / name).read_text())


def actions(name: str) -> list[str]:
    """Return every action that a policy names."""
    return [
        action
        for each in policy(name)["Statement"]
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    ]


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_what_iam_takes(name: str) -> None:
    IAMPolicyDocumentValidator(json.dumps(policy(name))).validate()


@pytest.mark.parametrize("name", TRUST)
def test_trust_policies_are_what_iam_takes(name: str) -> None:
    IAMTrustPolicyDocumentValidator(json.dumps(policy(name))).validate()


@pytest.mark.parametrize("name", [*POLICIES, *TRUST, "aws-bucket.json"])
def test_policies_with_a_misspelt_key_are_refused(name: str) -> None:
    broken = policy(name)
    broken["Statement"][0]["Effects"] = broken["Statement"][0].pop("Effect")
    with pytest.raises(Exception, match=r"Syntax|syntax"):
        IAMPolicyDocumentValidator(json.dumps(broken)).validate()


@pytest.mark.parametrize("name", ["aws-token.json", "aws-head.json", "aws-launcher.json"])
def test_actions_are_calls_of_their_service(name: str) -> None:
    session = botocore.session.get_session()
    for action in actions(name):
        service, _, call = action.partition(":")
        if call != "PassRole":  # a right, and no call
            assert call in session.get_service_model(service).operation_names


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_names_all_actions_or_writes_to_all_resources(name: str) -> None:
    assert not any("*" in action for action in actions(name))
    for each in policy(name)["Statement"]:
        if each["Resource"] == "*":  # EC2 cannot narrow these
            named = [each["Action"]] if isinstance(each["Action"], str) else each["Action"]
            assert all(action.startswith("ec2:Describe") for action in named)


def test_the_lifecycle_rule_is_what_s3_takes() -> None:
    model = botocore.session.get_session().get_service_model("s3")
    shape = model.operation_model("PutBucketLifecycleConfiguration").input_shape
    assert shape is not None
    asked = {"Bucket": "your-bucket", "LifecycleConfiguration": policy("aws-bucket-lifecycle.json")}
    assert not ParamValidator().validate(asked, shape).has_errors()


@set_initial_no_auth_action_count(0)
def as_a_run(doing: Callable[[], Any]) -> Any:
    """Do something with the rights that the user of the environment has."""
    return doing()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket with a video, weights and a checkpoint, and the credentials of a user who has aws-run.json alone."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        forget_client()
        s3, iam = boto3.client("s3"), boto3.client("iam")
        for name in ("your-bucket", "another-bucket"):
            s3.create_bucket(Bucket=name)
            for key in ("k400/train/a.mp4", "weights/raft.pth", "runs/r/checkpoints/step_1/manifest.json"):
                s3.put_object(Bucket=name, Key=key, Body=b"12345678")
        iam.create_user(UserName="run")
        iam.put_user_policy(UserName="run", PolicyName="run", PolicyDocument=json.dumps(policy("aws-run.json")))
        key = iam.create_access_key(UserName="run")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        forget_client()
        yield
    forget_client()


def test_a_run_may_do_all_that_storage_does(bucket: None, tmp_path: Path) -> None:
    def run() -> None:
        assert [each.size for each in storage.list_objects(f"{BUCKET}/k400/train")] == [8]
        assert storage.read(f"{BUCKET}/k400/train/a.mp4", 2, 5) == b"345"
        assert storage.size(f"{BUCKET}/weights/raft.pth") == 8
        assert not storage.exists(f"{BUCKET}/runs/r/nothing")
        storage.write(f"{BUCKET}/runs/r/metrics.jsonl", b"{}")
        assert storage.create(f"{BUCKET}/runs/r/lease/1.json", b"{}")
        assert storage.enforces_create(f"{BUCKET}/runs/r")
        large = tmp_path / "rank_0.safetensors"
        large.write_bytes(bytes(17 << 20))  # in parts
        storage.upload(large, f"{BUCKET}/runs/r/checkpoints/step_2/rank_0.safetensors")
        storage.remove_folder(f"{BUCKET}/runs/r/checkpoints")

    as_a_run(run)


def test_a_run_may_do_no_more(bucket: None) -> None:
    forbidden: list[Callable[[], Any]] = [
        lambda: storage.write(f"{BUCKET}/k400/train/a.mp4", b"another video"),
        lambda: storage.delete([f"{BUCKET}/weights/raft.pth"]),
        lambda: storage.create(f"{BUCKET}/elsewhere", b""),
        lambda: storage.read("s3://another-bucket/k400/train/a.mp4"),
        lambda: storage.write("s3://another-bucket/runs/r/metrics.jsonl", b""),
        lambda: boto3.Session().client("s3").delete_bucket(Bucket="your-bucket"),
        lambda: boto3.Session().client("s3").list_buckets(),
        lambda: boto3.Session().client("iam").create_user(UserName="another"),
    ]
    for each in forbidden:
        with pytest.raises(Exception, match=r"(?i)denied|not authorized|forbidden|may not"):
            as_a_run(each)


def head_may(action: str, resource: str, **told: str) -> bool:
    """Ask the head's policy, with what EC2 would know of a request."""
    answer = IAMPolicy(json.dumps(policy("aws-head.json"))).is_action_permitted(
        action, resource, incoming_condition_values={key.replace("__", ":", 1): value for key, value in told.items()}
    )
    return bool(answer == PermissionResult.PERMITTED)


def test_a_head_passes_the_workers_role_on_and_not_its_own() -> None:
    told = {"iam__PassedToService": "ec2.amazonaws.com"}
    assert head_may("iam:PassRole", "arn:aws:iam::000000000000:role/tubelet-worker", **told)
    assert not head_may("iam:PassRole", "arn:aws:iam::000000000000:role/tubelet-head", **told)
    assert not head_may("iam:CreateRole", "arn:aws:iam::000000000000:role/another")


def test_a_head_starts_the_types_of_the_file_under_the_clusters_name_in_its_region() -> None:
    (start,) = [each for each in policy("aws-head.json")["Statement"] if each["Sid"] == "StartTheClustersMachines"]
    config = read("aws.yaml")
    workers = {
        each["node_config"]["InstanceType"]
        for name, each in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    conditions = start["Condition"]["StringEquals"]
    assert set(conditions["ec2:InstanceType"]) == workers
    assert conditions["aws:RequestTag/ray-cluster-name"] == config["cluster_name"]
    assert f":ec2:{config['provider']['region']}:" in start["Resource"]


def test_the_token_is_read_from_where_the_cluster_file_asks() -> None:
    (statement,) = policy("aws-token.json")["Statement"]
    _, _, name = statement["Resource"].partition(":parameter")
    assert f"Name='{name}'" in read("aws.yaml")["setup_commands"][0]


def test_the_bucket_refuses_clear_text_to_everyone() -> None:
    (refused,) = policy("aws-bucket.json")["Statement"]
    assert (refused["Effect"], refused["Principal"], refused["Action"]) == ("Deny", "*", "s3:*")
    assert refused["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize("name", ["gcp-head.yaml", "gcp-run.yaml"])
def test_google_knows_every_field_of_a_role(name: str) -> None:
    check_google("iam.v1", "Role", yaml.safe_load((IAM / name).read_text()))


def test_googles_roles_allow_nothing_outside_their_service() -> None:
    head, run = (read(f"iam/{name}")["includedPermissions"] for name in ("gcp-head.yaml", "gcp-run.yaml"))
    assert all(each.startswith("compute.") for each in head)
    assert all(each.startswith(("storage.objects.", "storage.multipartUploads.")) for each in run)
    assert not any("*" in each or each.endswith("setIamPolicy") for each in head + run)
