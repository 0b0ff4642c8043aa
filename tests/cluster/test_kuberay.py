"""KubeRay's files meet KubeRay's schema, closed so that a misspelt key is refused where KubeRay would drop it silently.

What is not KubeRay's (accounts, network policy, priorities) meets Kubernetes' types as kubernetes-validate ships them;
those tests skip without it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.cluster.files import CLUSTER, RAYCLUSTER, RAYJOB, ROOT, kuberay_types, read, rename

# The maintainers' copy of KubeRay's definitions lies beside the repository; it is not part of the project.
SCHEMAS = ROOT.parent / "shared" / "schemas"
needs_crd = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="KubeRay's definitions are not there: shared/schemas")
ACCESS = list(yaml.safe_load_all((CLUSTER / "kuberay/access.yaml").read_text()))


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


@lru_cache(maxsize=2)
def schema_of(name: str) -> jsonschema.Draft7Validator:
    """Return KubeRay's schema of a file's kind, closed."""
    path = SCHEMAS / ("ray.io_rayjobs.yaml" if name == RAYJOB else "ray.io_rayclusters.yaml")
    # The C loader: the file has 1.4 MB, which is 0.2 s instead of 5.
    versions = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    return jsonschema.Draft7Validator(closed(schema))


def groups(name: str = RAYJOB) -> list[Any]:
    """Return the head group and the worker groups of a file."""
    spec = read(name)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def gibibytes(quantity: str) -> int:
    """Return the number in a Kubernetes quantity such as 24Gi."""
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))


def check_access(value: Any) -> None:
    """Check one record of access.yaml; unknown keys are refused."""
    kubernetes_validate.validate(value, kubernetes_validate.latest_version(), strict=True)


@needs_crd
@pytest.mark.parametrize("name", [RAYJOB, RAYCLUSTER])
def test_files_pass_kuberays_schema(name: str) -> None:
    job = read(name)
    schema_of(name).validate(job)
    assert set(job["metadata"]) <= {"name", "namespace", "labels", "annotations"}  # the schema leaves these open


@needs_crd
@pytest.mark.parametrize(
    ("path", "typo"),
    [
        (["spec", "backoffLimit"], "backOffLimit"),
        (["spec", "submitterPodTemplate", "spec", "restartPolicy"], "restartpolicy"),
        (["spec", "rayClusterSpec", "enableInTreeAutoscaling"], "enableInTreeAutoScaling"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"], "rayStartParam"),
        (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "priorityClassName"], "priorityClas"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"], "maxReplica"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "tolerations"], "toleration"),
        (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "volumes", 0, "emptyDir"], "emptydir"),
    ],
)
def test_kuberay_refuses_a_misspelt_key(path: list[str | int], typo: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=typo):
        schema_of(RAYJOB).validate(rename(read(RAYJOB), path, typo))


@needs_crd
def test_kuberay_refuses_a_number_where_a_text_belongs() -> None:
    job = read(RAYJOB)
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError, match="is not of type 'string'"):
        schema_of(RAYJOB).validate(job)


def test_the_cluster_that_stays_has_the_jobs_machines() -> None:
    assert read(RAYCLUSTER)["spec"] == read(RAYJOB)["spec"]["rayClusterSpec"]


def test_rays_autoscaler_reads_the_groups_as_they_are_meant() -> None:
    types = kuberay_types()
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["decode"]["resources"]["decode"] == 12
    assert types["train"]["resources"]["GPU"] == types["train"]["resources"]["train"] == 4
    assert types["flow"]["resources"]["accelerator_type:L4"] == 1
    assert "GPU" not in types["decode"]["resources"]
    assert not {"decode", "train"} & set(types["headgroup"]["resources"])


def test_the_autoscaler_is_the_second_one() -> None:
    spec = read(RAYCLUSTER)["spec"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"


def test_groups_count_no_more_than_their_containers_have() -> None:
    for group in groups()[1:]:
        counted, limits = group["resources"], group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(counted["CPU"]) <= int(limits["cpu"])
        assert int(counted.get("GPU", 0)) == int(limits.get("nvidia.com/gpu", 0))


def test_object_stores_fit_shared_memory_and_that_fits_the_container() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        (shm,) = [each["emptyDir"] for each in pod["volumes"] if each["name"] == "shm"]
        resources = pod["containers"][0]["resources"]
        assert int(group["rayStartParams"]["object-store-memory"]) < gibibytes(shm["sizeLimit"]) << 30
        assert gibibytes(shm["sizeLimit"]) * 2 < gibibytes(resources["limits"]["memory"])
        assert resources["limits"] == resources["requests"]


def environment(group: Any) -> dict[str, str]:
    """Return what the container of a group is told."""
    return {each["name"]: each["value"] for each in group["template"]["spec"]["containers"][0]["env"]}


def test_pods_have_time_to_stop_after_the_drain() -> None:
    for group in groups():
        grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert float(environment(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < grace


def test_pods_start_nothing_ahead_and_the_head_keeps_few_records() -> None:
    from system.train.launch import FEW_RECORDS, START_NOTHING_AHEAD

    assert all(START_NOTHING_AHEAD.items() <= environment(group).items() for group in groups())
    assert [FEW_RECORDS.items() <= environment(group).items() for group in groups()] == [True, False, False, False]


def test_pods_run_without_root_and_take_secrets_by_name_alone() -> None:
    submitter = read(RAYJOB)["spec"]["submitterPodTemplate"]
    for pod in [*(group["template"]["spec"] for group in groups()), submitter["spec"]]:
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert security["runAsNonRoot"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert all(set(each) == {"secretRef"} for each in container.get("envFrom", []))


def test_only_the_head_may_speak_to_kubernetes() -> None:
    head, *workers = groups()
    assert head["template"]["spec"]["serviceAccountName"] == "tubelet-head"
    pods = [group["template"]["spec"] for group in workers]
    assert {pod["serviceAccountName"] for pod in pods} == {"tubelet"}
    assert not any(pod["automountServiceAccountToken"] for pod in pods)


def test_rayjob_runs_again_after_a_failure_and_leaves_no_cluster_behind() -> None:
    spec = read(RAYJOB)["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]


def test_rayjob_stops_as_a_submitted_job_does() -> None:
    (told,) = [yaml.safe_load(read(RAYJOB)["spec"]["runtimeEnvYAML"])]
    assert told["env_vars"] == read("runtime-env.yaml")["env_vars"]


@pytest.mark.parametrize("name", [RAYJOB, RAYCLUSTER])
def test_files_name_the_locked_version_of_ray_and_ask_for_a_token(name: str) -> None:
    spec = read(name)["spec"]
    spec = spec.get("rayClusterSpec", spec)
    assert f"\nray=={spec['rayVersion']} " in (ROOT / "requirements.lock").read_text()
    assert spec["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("value", ACCESS, ids=lambda value: f"{value['kind']}-{value['metadata']['name']}")
def test_kubernetes_knows_what_access_says(value: Any) -> None:
    check_access(value)


@pytest.mark.parametrize(
    ("kind", "path", "typo"),
    [
        ("NetworkPolicy", ["spec", "ingress", 0, "from"], "form"),
        ("NetworkPolicy", ["spec", "podSelector", "matchExpressions", 0, "operator"], "operation"),
        ("PriorityClass", ["preemptionPolicy"], "preemption"),
        ("Role", ["rules", 0, "verbs"], "verb"),
    ],
)
def test_kubernetes_refuses_a_misspelt_key(kind: str, path: list[str | int], typo: str) -> None:
    value = next(each for each in ACCESS if each["kind"] == kind)
    with pytest.raises(jsonschema.ValidationError, match=typo):
        check_access(rename(value, path, typo))


def test_accounts_and_priorities_that_pods_name_are_there() -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in ACCESS}
    for group in groups():
        pod = group["template"]["spec"]
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        assert ("PriorityClass", pod["priorityClassName"]) in there
    spaces = {read(name)["metadata"]["namespace"] for name in (RAYJOB, RAYCLUSTER)}
    assert spaces == {"tubelet"}


def test_the_namespace_refuses_pods_with_rights_over_their_node() -> None:
    (namespace,) = [each for each in ACCESS if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nobody_from_outside_reaches_ray_and_no_pod_the_nodes_own_rights() -> None:
    (policy,) = [each["spec"] for each in ACCESS if each["kind"] == "NetworkPolicy"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(each["from"] for each in policy["ingress"])
    assert not any("ipBlock" in peer for each in policy["ingress"] for peer in each["from"])
    (world,) = [
        peer["ipBlock"]
        for each in policy["egress"]
        for peer in each["to"]
        if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
    ]
    assert world["except"] == ["169.254.0.0/16"]


def test_heads_stay_longest_and_decoders_shortest() -> None:
    value = {each["metadata"]["name"]: each["value"] for each in ACCESS if each["kind"] == "PriorityClass"}
    assert value["tubelet-head"] > value["tubelet-train"] > value["tubelet-decode"] > 0
