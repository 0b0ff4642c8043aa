"""How each command of the pages is run here: what of it is made small or local, and what it says and leaves.

And of those that cannot be run on two cores without network, GPU, cloud or cluster: why.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.conftest import TINY
from tests.docs.commands import Command
from tests.docs.pictures import checks_of_doctor

# Names on a page for what is the reader's own, wherever they stand, and what they are here (world.py).
PLACES = {
    r"^/path/to/videos$|^/path/or/s3://bucket/prefix$": "videos/train",
    r"s3://(your-)?bucket\b": "bucket",
    r"^/data/DAVIS$": "davis",
    r"^/videos/index.parquet$": "videos/train/index.parquet",
    r"\brun\.storage=/runs$": "run.storage=runs",
    r"\bNAME$": "demo",
    r"^runs/demo-\.\.\.$": "runs/demo",
    r"^\.\.\.$|^FILE$": "jobs/recipes/smoke.yaml",
    r"^1234$|^K$": "1",
    r"^method\.name=\.\.\.$": "method.name=videomae",
}
# The sizes of the small runs, for recipes whose own are large.
SMALL = tuple(
    each
    for each in TINY
    if each.startswith(("model.", "method.mask_ratio", "data.num_frames", "data.size", "data.views"))
)
TRAINED = (*(each for each in TINY if not each.startswith(("data.uri", "model.size"))), "train.steps=4")


@dataclass(frozen=True)
class Way:
    """How a command is run.

    Attributes:
        adds: words behind those of the page.
        swaps: words of the page, as regular expressions -> what stands in their place.
        afresh: what is named by --out is taken away first.
        says: regular expressions, each of which is found in what it tells.
        leaves: files, as patterns, that are there afterwards: in the folder of --out, or from the current one.
    """

    adds: tuple[str, ...] = ()
    swaps: Mapping[str, str] = field(default_factory=dict)
    afresh: bool = False
    says: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()

    def arguments(self, command: Command) -> list[str]:
        """Return what the job is given; what a page writes in brackets may be left out, and is."""
        found: list[str] = []
        depth = 0
        for word in command.arguments:
            optional = depth or word.startswith("[")
            depth += word.count("[") - word.count("]")
            if not optional:
                found += self._here(word)
        return [*found, *self.adds]

    def _here(self, word: str) -> list[str]:
        for name, other in self.swaps.items():
            if re.fullmatch(name, word):
                return shlex.split(other)
        for name, other in PLACES.items():
            word = re.sub(name, other, word)
        return [word]


_LOCAL = ("--local",)
_CHECKS = tuple(rf"^  \w+ +{name} " for name in checks_of_doctor())
_FOLLOWED = ("results.json", "masks/*/*.png", "pictures/*.png")
_GENERATED = ("--videos", "11", "--frames", "24", "--height", "48", "--width", "64")
_SHOWN = Way(("--show",), says=(r"^method:", r"^# learning rate: ", r"^# videos of a step: "))

# Job -> the way of its commands.
WAYS: Mapping[str, Way] = {
    "audit": Way(says=(r"^audit: clean: ",)),
    "benchmark": Way(("plan", "--short"), says=(r"^reached \d+ of \d+",)),
    "compare_motion": Way(
        ("--clips", "1", "--frames", "4", "--size", "128", "--stride", "2", "--pictures", "1"),
        {r"synthetic://.*": "synthetic://moving?videos=1&frames=24&height=72&width=96"},
        says=(r"^\| dis ", r"^\| raft ", r"^\| codec "),
        leaves=("motion/motion_sources.png",),
    ),
    "doctor": Way(("--seconds", "1"), says=_CHECKS),
    "embed": Way(_LOCAL, says=(r"^22 videos, |^11 videos, ",), leaves=("manifest.json", "parts/part-00000.parquet")),
    "evaluate": Way(
        _LOCAL,
        says=(r"^one view   top-1", r"^merged     top-1"),
        leaves=(
            *("results.json", "confusion.json", "confusion.png", "predictions.parquet", "manifest.json"),
            "parts/*.parquet",
        ),
    ),
    "export": Way(says=(r"^step 4 of ",), leaves=("model.safetensors", "README.md")),
    "fields": Way(says=(r"^  train\.",)),
    "finetune": _SHOWN,
    "import_tokenizer": Way(says=(r"^vqgan: 40 codes of 16 px",)),
    "import_weights": Way((*SMALL, "motion.source=dis"), afresh=True, says=(r"^fits ", r"^written: ")),
    "index": Way(says=(r"^22 videos: ",), leaves=("bucket/videos/index.parquet",)),
    "make_shards": Way(says=(r"^22 videos, 0 left out",), leaves=("shard-*.tar", "shard-*.json", "index.parquet")),
    "make_videos": Way(_GENERATED, afresh=True, says=(r"^11 ",)),
    "plan": Way(("--seconds", "1", *SMALL), says=(r" limits the run: ", r"^as the recipe stands", r"^decode +core")),
    "preflight": Way(("--no-cluster", "run.name=checked"), says=(r"^ready to train$",)),
    "pretrain": _SHOWN,
    "probe": Way(_LOCAL, says=(r"^linear +top-1", r"^knn, k=1 +top-1"), leaves=("probe.json", "train", "test")),
    "reference": Way(
        (*TRAINED, "data.uri=videos/train", "--out", "jobs/recipes/references.json"),
        says=(r"^seed 2: loss ", r" points of smoke: "),
    ),
    "replay": Way(says=(r"step 1 equal: ",), leaves=("runs/demo/pictures/replay_step_00000001.png",)),
    "report": Way(says=(r"\.html",)),
    "scale_probe": Way(says=(r"^GPUs ", r"^decode machines ")),
    "segment": Way(("--short-side", "64", "--multiple", "16"), says=(r"found: J&F-Mean",), leaves=_FOLLOWED),
    "status": Way(says=(r"^complete: 4 steps are done",)),
    "terminal_picture": Way(swaps={"COMMAND": f"{sys.executable} -m jobs.fields train"}, says=(r"ended with 0$",)),
    "train_tokenizer": Way(
        (*("--steps", "4", "--codes", "16", "--images", "8", "--width", "16"), "data.uri=videos/train"),
        says=(r"perplexity",),
    ),
}
# Commands, as regular expressions of `page: words`, whose way is not that of their job.
OWN_WAYS: Mapping[str, Way] = {
    r"jobs\.doctor \[": Way(("--data", "videos/train", "--seconds", "1"), says=_CHECKS),
    r"jobs\.evaluate .* --data videos ": Way(swaps={"videos": "videos/val"}, says=(r"^merged     top-1",)),
    r"jobs\.embed --recipe .*videomae-vitb-k400": Way(
        (*_LOCAL, *SMALL), {"videos/index.parquet": "videos/train/index.parquet"}, says=(r"dense 5x3 views each",)
    ),
    r"jobs\.export --help": Way(says=(r"--format",)),
    r"jobs\.index --labels folder$": Way(("--data", "videos/val"), says=(r"^11 videos: ",)),
    r"jobs\.make_videos --masks": Way(
        (*_GENERATED, "--videos", "2", "--frames", "5"), afresh=True, says=(r"^2 sequences of 5 frames",)
    ),
    r"jobs\.plan --recipe FILE": Way(
        ("--index", "videos/train/index.parquet", "--seconds", "1", *SMALL), says=(r" limits the run: ",)
    ),
    r"jobs\.probe .* --tokens-side 3 ": Way(("--tokens-side", "1"), says=(r"^attentive +top-1",)),
    r"jobs\.report --run runs/demo$": Way(says=(r"\.html",), leaves=("runs/demo/report.html",)),
    r"jobs\.report --runs ": Way(leaves=("compared.html",)),
}

# Programs that are none of ours: why they are not run.
NOT_OURS: Mapping[str, str] = {
    **dict.fromkeys(("aws", "eksctl"), "an account of Amazon's cloud"),
    "gcloud": "an account of Google's cloud",
    **dict.fromkeys(("kubectl", "helm"), "a cluster of Kubernetes"),
    "docker": "a Docker daemon, and images of the network",
    "ray": "a cluster; tests/cluster holds the files that it is given",
    "pip": "the network",
    "make": "sets up from the network, or runs jobs that start Ray; tests/jobs and the walk run these",
    "cluster/monitoring/start.sh": "Prometheus and Grafana; tests/cluster runs it with stand-ins",
    **dict.fromkeys((".", "umask", "export", "for", "done", "base64"), "a shell's part of the lines around it"),
}
# Commands, as regular expressions of `page: words`: why they are not run.
NOT_HERE: Mapping[str, str] = {
    r"jobs\.chaos ": "Ray clusters for minutes; tests/jobs/test_chaos.py runs a short one",
    r"jobs\.autoscaling ": "a cluster that grows, for minutes; tests/jobs/test_autoscaling.py runs a short one",
    r"jobs\.learning_check ": "minutes to hours; tests/jobs/test_learning_check.py runs a smaller one",
    r"jobs\.scale_probe --ranks": "Ray for minutes; tests/jobs/test_scale_probe.py runs a short one",
    r"jobs\.submit ": "a cluster's dashboard; tests/jobs/test_submit.py runs it against one",
    r"jobs\.benchmark mask": "minutes, also with --short; tests/benchmark measures small ones",
    r"jobs\.benchmark \.\.\. --keep": "adds to the history that this repository keeps",
    r": python -c from torchvision": "the network",
    r": python -c \nimport json, sys": "the answer of an account of Google's",
    r": python -m tests\.report\.pictures": "the report of a whole demo; tests/report/test_browser.py looks at one",
}
# Values of a shell, which are no command.
_VALUE = re.compile(r"[A-Z]+=")


def reason(command: Command) -> str | None:
    """Return why a command is not run here; None: nobody says so."""
    if command.job is None and _VALUE.match(command.words[0]):
        return "a shell's part of the lines around it"
    if command.job is None and command.words[0] in NOT_OURS:
        return NOT_OURS[command.words[0]]
    return next((why for pattern, why in NOT_HERE.items() if re.search(pattern, str(command))), None)


def way(command: Command) -> Way | None:
    """Return how a command is run here; None: nobody says how."""
    own = [each for pattern, each in OWN_WAYS.items() if re.search(pattern, str(command))]
    return own[0] if own else WAYS.get(command.job or "")
