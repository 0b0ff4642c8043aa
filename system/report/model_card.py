"""The README.md beside exported weights: what they are, how they came about, and how they are loaded. Text only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from system.recipe import Recipe, dump_recipe

# Classes that the table names.
SHOWN = 5

Format = Literal["tubelet", "hf-pretraining", "hf-classification"]


@dataclass(frozen=True)
class Facts:
    """What a card says besides the recipe.

    Attributes:
        format: of the weights.
        step: steps that were trained.
        clips: clips seen.
        fingerprint: of the index of the videos.
        metrics: values by name, of the last logged steps.
        left: tensors of the run that are not in the files.
        old_biases: Hugging Face's names of transformers 4.
        started_from: what warm_start.json says, if the run did not start from drawn weights.
        classes: names of those that a fine-tuned run tells apart, by number.
    """

    format: Format
    step: int
    clips: int
    fingerprint: str
    metrics: Mapping[str, float]
    left: Sequence[str]
    old_biases: bool
    started_from: Mapping[str, Any] | None
    classes: Sequence[str] = ()


def model_card(recipe: Recipe, facts: Facts) -> str:
    """Write the card."""
    return "\n".join(
        [
            *_front(facts),
            f"# {recipe.run.name}: {recipe.method.name}, {recipe.model.size}",
            "",
            *_table(recipe, facts),
            "",
            *_contents(facts),
            "",
            "## Load",
            "",
            *_loading(recipe, facts),
            "",
            "## Input",
            "",
            f"Clips of {recipe.data.num_frames} frames, every {recipe.data.stride}th, {recipe.data.size} x"
            f" {recipe.data.size} px. RGB in [0, 1], then ImageNet's mean (0.485, 0.456, 0.406) and deviation"
            " (0.229, 0.224, 0.225).",
            "",
            "## Recipe",
            "",
            "```yaml",
            dump_recipe(recipe).rstrip(),
            "```",
            "",
        ]
    )


def _front(facts: Facts) -> list[str]:
    library = "safetensors" if facts.format == "tubelet" else "transformers"
    learnt = "video-classification" if facts.classes else "self-supervised"
    return ["---", f"library_name: {library}", f"tags: [video, {learnt}, videomae]", "---", ""]


def _table(recipe: Recipe, facts: Facts) -> list[str]:
    source = recipe.record.source
    link = (
        f"[{source}](https://arxiv.org/abs/{source.removeprefix('arXiv:')})" if source.startswith("arXiv:") else source
    )
    rows = {
        "method": f"{recipe.method.name}, {link}",
        "steps": f"{facts.step} of {recipe.train.global_batch} clips",
        "clips seen": str(facts.clips),
        "videos": f"{recipe.data.uri}, fingerprint `{facts.fingerprint}`",
        "seed": str(recipe.run.seed),
        **{name: f"{value:.6g}" for name, value in facts.metrics.items()},
    }
    if facts.classes:
        rows["classes"] = f"{len(facts.classes)}: {', '.join(facts.classes[:SHOWN])}"
        rows["classes"] += ", ..." if len(facts.classes) > SHOWN else ""
    start = facts.started_from
    if start:
        anew = f"; drawn anew: {', '.join(start['drawn_anew'])}" if start["drawn_anew"] else ""
        rows["started from"] = f"{start['uri']}, {start['kind']}{anew}"
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _contents(facts: Facts) -> list[str]:
    lines = {
        "tubelet": "`model.safetensors` holds all parameters of the method's model, by their own names, float32.",
        "hf-pretraining": "Encoder with its last norm, pixel decoder and mask token, float32, for"
        " `VideoMAEForPreTraining`.",
        "hf-classification": "The encoder, float32, for `VideoMAEForVideoClassification`. **The head is not trained**:"
        " `fc_norm` is (1, 0) and `classifier` is zero, so every class gets the same score until it is fine-tuned. As"
        " in VideoMAE's fine-tuning, the encoder's last norm is left out.",
    }
    if facts.classes:
        lines["tubelet"] += " The file's metadata names the classes: `classes`, a JSON list by number."
        lines["hf-classification"] = (
            "The fine-tuned encoder, norm and head, float32, for `VideoMAEForVideoClassification`; `id2label` names the"
            " classes."
        )
    lines_left = [f"Not in it: {len(facts.left)} tensors of {', '.join(_heads(facts.left))}."] if facts.left else []
    return [lines[facts.format], *lines_left]


def _heads(names: Sequence[str]) -> list[str]:
    return sorted({f"`{'.'.join(name.split('.')[:2])}`" for name in names})


def _loading(recipe: Recipe, facts: Facts) -> list[str]:
    if facts.format == "tubelet":
        return [
            "```sh",
            "# another run that starts from it",
            f"python -m jobs.{recipe.job} --recipe RECIPE train.init_from=THIS_FOLDER",
            "```",
            "",
            "```python",
            "from safetensors.torch import load_file",
            'state = load_file("model.safetensors")  # encoder.* is the encoder',
            "```",
        ]
    pretraining = facts.format == "hf-pretraining"
    name = "VideoMAEForPreTraining" if pretraining else "VideoMAEForVideoClassification"
    lines = [
        "```python",
        f"from transformers import {name}, VideoMAEImageProcessor",
        f'model = {name}.from_pretrained("THIS_FOLDER")',
        'processor = VideoMAEImageProcessor.from_pretrained("THIS_FOLDER")',
        f"# pixel_values: (B, {recipe.data.num_frames}, 3, {recipe.data.size}, {recipe.data.size})"
        + ("; bool_masked_pos: (B, N), True where hidden" if pretraining else ""),
        "```",
        "",
    ]
    if facts.old_biases:
        return [
            *lines,
            "Names of transformers 4 (`q_bias`). Releases of transformers 5 without the rule that renames them load"
            " zeros there instead: look at `query.bias` after loading.",
        ]
    return [*lines, "Names of transformers 5 (`query.bias`). Transformers 4 does not know them."]
