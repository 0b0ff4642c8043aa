"""The files under cluster/ say what their readers understand: Ray's launcher, KubeRay, EC2, Docker and our recipes.

No cloud is asked: each reader's own schema is. `ray up` files meet Ray's schema and EC2's; the RayJob meets KubeRay's,
closed so that a misspelt key is refused where KubeRay would drop it without a word.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from click import ClickException
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from system.errors import RecipeError
from system.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
RAY_UP = ("local.yaml", "aws.yaml")
RAYJOB = "kuberay/rayjob-pretrain.yaml"
# The maintainers' copy of KubeRay's definitions lies beside the repository; it is not part of the project.
CRD = ROOT.parent / "shared" / "schemas" / "ray.io_rayjobs.yaml"
needs_crd = pytest.mark.skipif(
    not CRD.is_file(), reason=f"KubeRay's definition of a RayJob is not there: {CRD.parent.name}/{CRD.name}"
)

# What keys and tokens look like: prefixes of well-known kinds, values given to names of secrets, long random strings.
# Paths of parameters are long as well, hence no slash, dash or dot in the last one.
SECRETS = re.compile(
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|-----BEGIN"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-|eyJ)[A-Za-z0-9_-]{16,}"
    r"|(?i:password|passwd|secret_access_key|session_token|auth_token|api_key)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{8,}"
    r"|\b(?=[A-Za-z0-9+]*[0-9])(?=[A-Za-z0-9+]*[A-Za-z])[A-Za-z0-9+]{32,}"
)


def read(name: str) -> Any:
    """Parse a YAML file under cluster/."""
    return yaml.safe_load((CLUSTER / name).read_text())


def rename(tree: Any, path: Sequence[str | int], name: str) -> Any:
    """Return a copy of a tree in which the key at a path has another name."""
    changed = copy.deepcopy(tree)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[name] = node.pop(path[-1])
    return changed


def check_ray_up(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in and check a `ray up` file as `ray up` does before it calls a cloud."""
    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


def check_ec2(node_config: dict[str, Any]) -> None:
    """Check what Ray passes on to EC2 unseen, against EC2's own description of the call."""
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    assert shape is not None
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    if report.has_errors():
        raise ValueError(report.generate_report())


def closed(schema: Any) -> Any:
    """Return a schema that refuses every key that it does not declare."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: closed(value) for key, value in schema.items()}
    # A property may itself be called `properties`: then the value is a schema, whose `type` is a text.
    declares = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if declares and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


@lru_cache(maxsize=1)
def rayjob_schema() -> jsonschema.Draft7Validator:
    """Return KubeRay's schema of a RayJob, closed."""
    # The C loader: the file has 1.4 MB, which is 0.2 s instead of 5.
    versions = yaml.load(CRD.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    return jsonschema.Draft7Validator(closed(schema))


def groups(job: Any) -> list[Any]:
    """Return the head group and the worker groups of a RayJob."""
    spec = job["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def ray_node_types() -> dict[str, Any]:
    """Return the groups of the RayJob as Ray's autoscaler will understand them."""
    cluster = {"metadata": {"name": "tubelet", "namespace": "default"}, "spec": read(RAYJOB)["spec"]["rayClusterSpec"]}
    types: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    return types


def gibibytes(quantity: str) -> int:
    """Return the number in a Kubernetes quantity such as 24Gi."""
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `python -m jobs.pretrain` in a file, as a shell would split them."""
    text = path.read_text()
    if path.suffix == ".yaml":
        lines = [entry] if (entry := (yaml.safe_load(text).get("spec") or {}).get("entrypoint")) else []
    else:
        lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        _, found, arguments = line.partition("python -m jobs.pretrain ")
        if found:
            yield shlex.split(arguments)


RUNS = [pytest.param(run, id=f"{path.name}-{number}") for path in FILES for number, run in enumerate(commands(path))]


def recipe_of(run: list[str]) -> Recipe:
    """Load the recipe of a command line."""
    option, name, *overrides = run
    assert option == "--recipe"
    return load_recipe(ROOT / name, overrides)


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: (name, arguments)."""
    lines = [line for line in (CLUSTER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


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
    ],
)
def test_ray_up_refuses_a_misspelt_key(name: str, path: list[str], typo: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=typo):
        check_ray_up(rename(read(name), path, typo))


def test_local_file_without_the_address_of_the_head_is_refused() -> None:
    with pytest.raises((SystemExit, ClickException)):
        check_ray_up(rename(read("local.yaml"), ["provider", "head_ip"], "head_ipp"))


@pytest.mark.parametrize("group", ["head", "decode", "train"])
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


def test_aws_machines_that_work_are_spot_and_the_head_is_not() -> None:
    types = read("aws.yaml")["available_node_types"]
    spot = {name for name, each in types.items() if "InstanceMarketOptions" in each["node_config"]}
    assert spot == {"decode", "train"}


def test_aws_machines_get_their_rights_from_a_role_and_open_no_port_but_ssh() -> None:
    config = read("aws.yaml")
    types = config["available_node_types"].values()
    assert all(each["node_config"]["IamInstanceProfile"] for each in types)
    assert "IpPermissions" not in config["provider"]["security_group"]
    assert not config["file_mounts"]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_heads_keep_their_dashboard_to_themselves_and_ask_for_a_token(name: str) -> None:
    config = read(name)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]


def test_aws_limit_of_workers_is_the_sum_of_the_groups() -> None:
    config = read("aws.yaml")
    assert config["max_workers"] == sum(each["max_workers"] for each in config["available_node_types"].values())


@needs_crd
def test_rayjob_passes_kuberays_schema() -> None:
    job = read(RAYJOB)
    rayjob_schema().validate(job)
    assert set(job["metadata"]) <= {"name", "namespace", "labels", "annotations"}  # the schema leaves these open


@needs_crd
@pytest.mark.parametrize(
    ("path", "typo"),
    [
        (["spec", "backoffLimit"], "backOffLimit"),
        (["spec", "rayClusterSpec", "enableInTreeAutoscaling"], "enableInTreeAutoScaling"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"], "rayStartParam"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"], "maxReplica"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "tolerations"], "toleration"),
        (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "volumes", 0, "emptyDir"], "emptydir"),
    ],
)
def test_kuberay_refuses_a_misspelt_key(path: list[str | int], typo: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=typo):
        rayjob_schema().validate(rename(read(RAYJOB), path, typo))


@needs_crd
def test_kuberay_refuses_a_number_where_a_text_belongs() -> None:
    job = read(RAYJOB)
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError, match="is not of type 'string'"):
        rayjob_schema().validate(job)


def test_rays_autoscaler_reads_the_rayjobs_groups_as_they_are_meant() -> None:
    types = ray_node_types()
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["decode"]["resources"]["decode"] == 12
    assert types["train"]["resources"]["GPU"] == types["train"]["resources"]["train"] == 4


def test_rayjob_groups_count_no_more_than_their_containers_have() -> None:
    for group in groups(read(RAYJOB))[1:]:
        counted, limits = group["resources"], group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(counted["CPU"]) <= int(limits["cpu"])
        assert int(counted.get("GPU", 0)) == int(limits.get("nvidia.com/gpu", 0))


def test_rayjob_can_grow_to_what_its_run_asks_for() -> None:
    resources = recipe_of(next(commands(CLUSTER / RAYJOB))).resources
    most: dict[str, int] = {}
    for kind in ray_node_types().values():
        for name, amount in kind["resources"].items():
            most[name] = most.get(name, 0) + amount * kind["max_workers"]
    assert isinstance(resources.decode_actors, tuple)
    assert isinstance(resources.mask.actors, int)
    assert isinstance(resources.num_workers, int)
    assert most["GPU"] == resources.num_workers + resources.mask.actors * resources.mask.gpus_per_actor
    assert most["train"] >= resources.num_workers * resources.worker_resources["train"]
    assert most["decode"] == resources.decode_actors[1] * resources.decode_resources["decode"]


def test_rayjob_object_stores_fit_shared_memory_and_that_fits_the_container() -> None:
    for group in groups(read(RAYJOB)):
        pod = group["template"]["spec"]
        (shm,) = [each["emptyDir"] for each in pod["volumes"] if each["name"] == "shm"]
        resources = pod["containers"][0]["resources"]
        assert int(group["rayStartParams"]["object-store-memory"]) < gibibytes(shm["sizeLimit"]) << 30
        assert gibibytes(shm["sizeLimit"]) * 2 < gibibytes(resources["limits"]["memory"])
        assert resources["limits"] == resources["requests"]


def test_rayjob_pods_have_time_to_stop_after_the_drain() -> None:
    for group in groups(read(RAYJOB)):
        pod = group["template"]["spec"]
        env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        assert float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < pod["terminationGracePeriodSeconds"]


def test_rayjob_pods_run_without_root_and_take_secrets_by_name_alone() -> None:
    for group in groups(read(RAYJOB)):
        (container,) = group["template"]["spec"]["containers"]
        assert container["securityContext"]["runAsNonRoot"]
        assert all(set(each) == {"secretRef"} for each in container["envFrom"])


def test_rayjob_runs_again_after_a_failure_and_leaves_no_cluster_behind() -> None:
    spec = read(RAYJOB)["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]


def test_rayjob_names_the_locked_version_of_ray() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert f"\nray=={read(RAYJOB)['spec']['rayClusterSpec']['rayVersion']} " in lock


def test_commands_are_found_in_the_rayjob_and_the_readme() -> None:
    assert {str(run.id).rsplit("-", 1)[0] for run in RUNS} == {"rayjob-pretrain.yaml", "README.md"}


@pytest.mark.parametrize("run", RUNS)
def test_recipe_overrides_parse(run: list[str]) -> None:
    assert recipe_of(run).run.storage == "s3://your-bucket/runs"


@pytest.mark.parametrize("run", RUNS)
def test_recipe_overrides_with_a_misspelt_key_are_refused(run: list[str]) -> None:
    misspelt = [each.replace("resources.num_workers", "resources.num_worker") for each in run]
    with pytest.raises(RecipeError, match="num_workers"):
        recipe_of(misspelt)


@pytest.mark.parametrize("run", RUNS)
def test_runs_ask_for_resources_that_some_group_has(run: list[str]) -> None:
    resources = recipe_of(run).resources
    asked = {**resources.decode_resources, **resources.worker_resources}
    aws = [name for each in read("aws.yaml")["available_node_types"].values() for name in each["resources"]]
    kuberay = [name for each in ray_node_types().values() for name in each["resources"]]
    assert set(asked) <= set(aws) & set(kuberay)


@pytest.mark.parametrize("run", RUNS)
def test_run_arguments_survive_a_second_shell(run: list[str]) -> None:
    assert shlex.split(" ".join(run)) == run
    assert not any(set(argument) & set("{}[]*?$;&|<>") for argument in run)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_hold_no_key_or_token(path: Path) -> None:
    assert SECRETS.search(path.read_text()) is None


@pytest.mark.parametrize(
    "secret",
    [
        "AKIA" + "Q" * 16,
        "-----BEGIN " + "OPENSSH PRIVATE KEY",
        "hf_" + "a1" * 16,
        "auth_token: " + "c0ffee" * 4,
        "AWS_SECRET_ACCESS_KEY=" + "wJalrXUt/" * 4,
        "0123456789abcdef" * 4,
    ],
)
def test_keys_and_tokens_are_recognised(secret: str) -> None:
    assert SECRETS.search(f"  - value: x\n    {secret}\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_ascii(path: Path) -> None:
    assert path.read_bytes().isascii()


def test_image_runs_as_a_user_without_root_given_by_number() -> None:
    name, user = instructions()[-1]
    assert name == "USER"
    assert int(user.split(":")[0]) > 0


def test_image_lets_python_write_byte_code_and_compiles_what_it_installs() -> None:
    # A comment may name it; no instruction may.
    assert not any("PYTHONDONTWRITEBYTECODE" in arguments for _, arguments in instructions())
    assert any("--compile-bytecode" in arguments for _, arguments in instructions())


def test_image_installs_the_lock_with_hashes_by_the_makefiles_uv() -> None:
    version = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert version and ("ARG", f"UV_VERSION={version[1]}") in instructions()
    (sync,) = [arguments for _, arguments in instructions() if "uv pip sync" in arguments]
    assert "--require-hashes" in sync


def test_image_takes_what_the_ignore_file_lets_through() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {rest.split()[0] for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")}
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert all((ROOT / each).exists() for each in copied)


def test_image_says_its_home_since_ray_up_reads_it_there() -> None:
    assert any(name == "ENV" and "HOME=/home/ray" in rest for name, rest in instructions())
