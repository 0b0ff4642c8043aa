"""`ray up` files meet Ray's schema, and their machines what EC2 and Compute Engine say of their own calls.

No cloud is asked. Compute Engine's description comes with google-api-python-client; those tests skip without it.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import lru_cache
from importlib import resources
from typing import Any

import botocore.session
import jsonschema
import pytest
from botocore.validate import ParamValidator
from click import ClickException
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import CLUSTER, read, rename

RAY_UP = ("local.yaml", "aws.yaml", "gcp.yaml")
CLOUDS = ("aws.yaml", "gcp.yaml")
GROUPS = ("head", "decode", "train", "flow")
# What Google's machine types have, which no package says: (CPUs, GPUs).
GOOGLE = {"n2-standard-8": (8, 0), "n2-standard-32": (32, 0), "g2-standard-48": (48, 4), "n1-standard-16": (16, 0)}


def check_ray_up(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in and check a `ray up` file as `ray up` does before it calls a cloud."""
    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@lru_cache(maxsize=1)
def run_instances() -> Any:
    """Return EC2's description of the call that starts machines."""
    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def check_ec2(node_config: dict[str, Any]) -> None:
    """Check what Ray passes on to EC2 unseen, against EC2's own description of the call."""
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, run_instances())
    if report.has_errors():
        raise ValueError(report.generate_report())


@lru_cache(maxsize=2)
def google_schemas(api: str) -> dict[str, Any]:
    """Return what a Google API says of its records."""
    document = resources.files("googleapiclient.discovery_cache") / "documents" / f"{api}.json"
    schemas: dict[str, Any] = json.loads(document.read_text())["schemas"]
    return schemas


def check_google(api: str, record: str, value: Any) -> None:
    """Check a value against a Google API's description of a record; unknown keys are refused."""
    schemas = google_schemas(api)

    def check(schema: dict[str, Any], value: Any, path: str) -> None:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        kind, known = schema.get("type"), schema.get("properties", {})
        if kind == "object":
            for key, each in value.items():
                inner = known.get(key, schema.get("additionalProperties"))
                if inner is None:
                    raise ValueError(f"{path}.{key} is not known")
                check(inner, each, f"{path}.{key}")
        elif kind == "array":
            for number, each in enumerate(value):
                check(schema["items"], each, f"{path}[{number}]")
        elif "enum" in schema and value not in schema["enum"]:
            raise ValueError(f"{path} is {value}, none of {schema['enum']}")
        elif not isinstance(value, {"integer": int, "boolean": bool}.get(str(kind), (str, int))):
            raise ValueError(f"{path} is {value!r}, not of type {kind}")

    check({"$ref": record}, value, record)


@lru_cache(maxsize=1)
def ec2_types() -> dict[str, Any]:
    """Return what EC2 says of its instance types, as moto ships it."""
    folder = resources.files("moto.ec2") / "resources"
    (path,) = [each for each in folder.iterdir() if each.name.startswith("instance_types.json")]
    raw = path.read_bytes()
    types: dict[str, Any] = json.loads(gzip.decompress(raw) if path.name.endswith(".gz") else raw)
    return types


def ec2_has(machine: dict[str, Any]) -> tuple[int, int]:
    """Return CPUs and GPUs of an instance type."""
    facts = ec2_types()[machine["InstanceType"]]
    return facts["VCpuInfo"]["DefaultVCpus"], sum(gpu["Count"] for gpu in facts.get("GpuInfo", {}).get("Gpus", []))


def google_has(machine: dict[str, Any]) -> tuple[int, int]:
    """Return CPUs and GPUs of a machine of Compute Engine."""
    cpus, gpus = GOOGLE[machine["machineType"]]
    return cpus, gpus + sum(each["acceleratorCount"] for each in machine.get("guestAccelerators", []))


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_files_pass_rays_own_check(name: str) -> None:
    assert check_ray_up(read(name))["docker"]["image"] == "your-registry/tubelet:0.1.0"


@pytest.mark.parametrize(
    ("name", "path", "typo"),
    [
        ("local.yaml", ["auth"], "auht"),
        ("local.yaml", ["auth", "ssh_user"], "ssh_usr"),
        ("local.yaml", ["docker", "run_options"], "run_option"),
        ("aws.yaml", ["idle_timeout_minutes"], "idle_timeout_minute"),
        ("aws.yaml", ["available_node_types", "decode", "max_workers"], "max_worker"),
        ("aws.yaml", ["available_node_types", "train", "docker", "worker_run_options"], "run_options"),
        ("aws.yaml", ["provider", "security_group", "GroupName"], "Groupname"),
        ("gcp.yaml", ["docker", "head_run_options"], "head_run_option"),
        ("gcp.yaml", ["available_node_types", "train", "min_workers"], "min_worker"),
    ],
)
def test_ray_up_refuses_a_misspelt_key(name: str, path: list[str], typo: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=typo):
        check_ray_up(rename(read(name), path, typo))


def test_local_file_without_the_address_of_the_head_is_refused() -> None:
    with pytest.raises((SystemExit, ClickException)):
        check_ray_up(rename(read("local.yaml"), ["provider", "head_ip"], "head_ipp"))


@pytest.mark.parametrize("group", GROUPS)
def test_ec2_knows_every_field_of_a_machine(group: str) -> None:
    check_ec2(read("aws.yaml")["available_node_types"][group]["node_config"])


@pytest.mark.parametrize(
    ("path", "typo"),
    [
        (["InstanceMarketOptions"], "InstanceMarketOption"),
        (["InstanceMarketOptions", "MarketType"], "Markettype"),
        (["BlockDeviceMappings", 0, "Ebs", "Encrypted"], "Encryptd"),
        (["IamInstanceProfile", "Name"], "name"),
    ],
)
def test_ec2_refuses_a_misspelt_field_of_a_machine(path: list[str | int], typo: str) -> None:
    machine = read("aws.yaml")["available_node_types"]["train"]["node_config"]
    with pytest.raises(ValueError, match=typo):
        check_ec2(rename(machine, path, typo))


@pytest.mark.parametrize("group", GROUPS)
def test_compute_engine_knows_every_field_of_a_machine(group: str) -> None:
    check_google("compute.v1", "Instance", read("gcp.yaml")["available_node_types"][group]["node_config"])


@pytest.mark.parametrize(
    ("path", "typo"),
    [
        (["scheduling", "provisioningModel"], "provisionModel"),
        (["serviceAccounts", 0, "email"], "mail"),
        (["disks", 0, "initializeParams", "diskSizeGb"], "diskSizeGB"),
    ],
)
def test_compute_engine_refuses_a_misspelt_field_of_a_machine(path: list[str | int], typo: str) -> None:
    machine = read("gcp.yaml")["available_node_types"]["train"]["node_config"]
    with pytest.raises(ValueError, match=typo):
        check_google("compute.v1", "Instance", rename(machine, path, typo))


def test_machines_that_work_are_spot_and_heads_are_not() -> None:
    aws, gcp = (read(name)["available_node_types"] for name in CLOUDS)
    spot = {name for name, each in aws.items() if "InstanceMarketOptions" in each["node_config"]}
    cheap = {
        name
        for name, each in gcp.items()
        if each["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT"
    }
    assert spot == cheap == {"decode", "train", "flow"}


@pytest.mark.slow  # a large file of facts
@pytest.mark.parametrize("group", ["decode", "train", "flow"])
def test_groups_count_the_cpus_and_gpus_that_their_machines_have(group: str) -> None:
    for name, facts in (("aws.yaml", ec2_has), ("gcp.yaml", google_has)):
        each = read(name)["available_node_types"][group]
        assert (each["resources"]["CPU"], each["resources"].get("GPU", 0)) == facts(each["node_config"])


@pytest.mark.parametrize("name", CLOUDS)
def test_machines_without_gpus_offer_none_and_decoders_have_no_place_on_those_with(name: str) -> None:
    types = read(name)["available_node_types"]
    assert all("GPU" not in types[group]["resources"] for group in ("head", "decode"))
    assert all("decode" not in types[group]["resources"] for group in ("head", "train", "flow"))


@pytest.mark.parametrize("name", CLOUDS)
def test_heads_take_no_work_and_groups_start_at_nothing(name: str) -> None:
    types = read(name)["available_node_types"]
    assert types["head"]["resources"]["CPU"] == types["head"]["max_workers"] == 0
    assert all(types[group]["min_workers"] == 0 for group in ("decode", "train", "flow"))


def test_aws_machines_get_their_rights_from_a_role_and_open_no_port_but_ssh() -> None:
    config = read("aws.yaml")
    types = config["available_node_types"].values()
    assert all(each["node_config"]["IamInstanceProfile"] for each in types)
    assert all(each["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for each in types)
    assert "IpPermissions" not in config["provider"]["security_group"]


def test_gcp_machines_have_accounts_of_their_own_and_workers_not_the_heads() -> None:
    types = read("gcp.yaml")["available_node_types"]
    accounts = {name: each["node_config"]["serviceAccounts"][0]["email"] for name, each in types.items()}
    assert len(set(accounts.values())) == 2
    assert [name for name, account in accounts.items() if account == accounts["head"]] == ["head"]
    assert "gcp_credentials" not in read("gcp.yaml")["provider"]


@pytest.mark.parametrize("name", CLOUDS)
def test_no_file_of_the_laptop_is_copied_and_no_unlocked_package_installed(name: str) -> None:
    prepared = check_ray_up(read(name))
    assert not prepared["file_mounts"]
    steps = [prepared[key] for key in ("setup_commands", "head_setup_commands", "worker_setup_commands")]
    assert all(len(each) == 1 for each in steps)  # the secrets, and none of Ray's own
    assert not re.search(r"\bpip\b", json.dumps(steps))


@pytest.mark.parametrize("name", CLOUDS)
def test_setup_commands_are_programs_that_python_can_read(name: str) -> None:
    (command,) = read(name)["setup_commands"]
    (program,) = re.findall(r'python -c "(.*?)"', command, re.DOTALL)
    compile(program, name, "exec")


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_heads_keep_their_dashboard_to_themselves_and_ask_for_a_token(name: str) -> None:
    config = read(name)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_nodes_start_nothing_ahead_and_heads_keep_few_records(name: str) -> None:
    from system.train.launch import FEW_RECORDS, START_NOTHING_AHEAD

    docker = read(name)["docker"]
    assert {f"-e {key}={value}" for key, value in START_NOTHING_AHEAD.items()} <= set(docker["run_options"])
    assert {f"-e {key}={value}" for key, value in FEW_RECORDS.items()} == set(docker["head_run_options"])


@pytest.mark.parametrize("name", CLOUDS)
def test_limit_of_workers_is_the_sum_of_the_groups(name: str) -> None:
    config = read(name)
    assert config["max_workers"] == sum(each["max_workers"] for each in config["available_node_types"].values())


def test_local_machines_have_no_resources_of_ours() -> None:
    assert "--resources" not in (CLUSTER / "local.yaml").read_text()
