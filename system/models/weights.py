"""Weights by name: ours, those of the released code, those of Hugging Face. Tensors in, tensors out; no files.

Ours are the names of the modules in this folder, which for encoder and pixel decoder are also those of VideoMAE's,
VideoMAE V2's and MGMAE's released pre-training code. Fine-tuned models of that code have no `encoder.` in front, and a
head. Hugging Face has other names, and three matrices where we have one. What heads a block has, no tensor says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from system.errors import WeightsError
from system.models.blocks import sinusoid

Tensors = Mapping[str, Tensor]

_BOTH = ("weight", "bias")
# Inside a block: our name, theirs. The matrix of query, key and value is cut on the way.
_BLOCK = {
    f"{mine}.{kind}": f"{theirs}.{kind}"
    for mine, theirs in (
        ("norm1", "layernorm_before"),
        ("attn.proj", "attention.output.dense"),
        ("norm2", "layernorm_after"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    )
    for kind in _BOTH
} | {f"attn.{short}_bias": f"attention.attention.{long}.bias" for short, long in (("q", "query"), ("v", "value"))}
_OLD_BIASES = {f"attention.attention.{short}_bias": f"attn.{short}_bias" for short in "qv"}
_QKV = "attn.qkv.weight"
_QKV_PARTS = tuple(f"attention.attention.{part}.weight" for part in ("query", "key", "value"))
_STACKS = {"encoder.blocks": "videomae.encoder.layer", "decoder.blocks": "decoder.decoder_layers"}
_ENCODER = {
    f"encoder.{mine}.{kind}": f"videomae.{theirs}.{kind}"
    for mine, theirs in (("patch_embed.proj", "embeddings.patch_embeddings.projection"), ("norm", "layernorm"))
    for kind in _BOTH
}
_DECODER = (
    "encoder_to_decoder.weight",
    "mask_token",
    *(f"decoder.{p}.{kind}" for p in ("norm", "head") for kind in _BOTH),
)
_HEAD = {
    f"{mine}.{kind}": f"{theirs}.{kind}"
    for mine, theirs in (("fc_norm",) * 2, ("head", "classifier"))
    for kind in _BOTH
}
_OUTSIDE = _ENCODER | {name: name for name in _DECODER} | _HEAD
_THEIR_BLOCK = {theirs: mine for mine, theirs in _BLOCK.items()} | _OLD_BIASES
_THEIR_OUTSIDE = {theirs: mine for mine, theirs in _OUTSIDE.items()}
_THEIR_STACKS = {theirs: mine for mine, theirs in _STACKS.items()}
_IN_BLOCK = re.compile(r"(.*?)\.(\d+)\.(.+)")


def some(names: Iterable[str], most: int = 4) -> str:
    """Write the first few names, and how many there are."""
    listed = sorted(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the shapes of tensors say of a model; no decoder: its numbers are None."""

    width: int
    depth: int
    tubelet_frames: int
    patch_px: int
    decoder_width: int | None
    decoder_depth: int | None

    def __str__(self) -> str:
        decoder = f"decoder {self.decoder_width} x {self.decoder_depth}" if self.decoder_depth else "no pixel decoder"
        patch = self.patch_px
        return f"encoder {self.width} wide x {self.depth} blocks of {self.tubelet_frames}x{patch}x{patch}, {decoder}"


def _depth(names: Collection[str], stack: str) -> int:
    found = (_IN_BLOCK.fullmatch(name) for name in names)
    return max((int(each[2]) for each in found if each and each[1] == stack), default=-1) + 1


def sizes_of(tensors: Tensors, where: str) -> Sizes:
    """Infer a model's sizes from its tensors, in our naming.

    Raises:
        WeightsError: if there is no encoder in it.
    """
    embed = tensors.get("encoder.patch_embed.proj.weight")
    depth = _depth(tensors, "encoder.blocks")
    if embed is None or embed.ndim != 5 or not depth:
        raise WeightsError(
            f"{where} holds no encoder of ours: a 5-dimensional encoder.patch_embed.proj.weight and encoder.blocks.0"
            f" are wanted, its names are {some(tensors) or 'none'}"
        )
    bridge, decoder_depth = tensors.get("encoder_to_decoder.weight"), _depth(tensors, "decoder.blocks")
    whole = bridge is not None and decoder_depth > 0
    return Sizes(
        embed.shape[0],
        depth,
        embed.shape[2],
        embed.shape[3],
        bridge.shape[0] if bridge is not None and whole else None,
        decoder_depth if whole else None,
    )


def encoder_names(depth: int) -> set[str]:
    """Return the names of an encoder's tensors, its last norm included."""
    inside = {f"encoder.blocks.{number}.{name}" for number in range(depth) for name in (*_BLOCK, _QKV)}
    return inside | set(_ENCODER)


def pixel_names(depth: int, decoder_depth: int) -> set[str]:
    """Return the names of all tensors of an encoder with a pixel decoder."""
    inside = {f"decoder.blocks.{number}.{name}" for number in range(decoder_depth) for name in (*_BLOCK, _QKV)}
    return encoder_names(depth) | inside | set(_DECODER)


def to_hugging_face(tensors: Tensors, *, old_biases: bool = False) -> dict[str, Tensor]:
    """Rename our weights to Hugging Face's names; every name must have one.

    Args:
        tensors: in our naming.
        old_biases: `q_bias` and `v_bias` as in transformers 4, not `query.bias` and `value.bias` as in 5.
    """
    biases = {mine: theirs for theirs, mine in _OLD_BIASES.items()} if old_biases else {}
    theirs: dict[str, Tensor] = {}
    for name, value in tensors.items():
        found = _IN_BLOCK.fullmatch(name)
        if found is None:
            theirs[_OUTSIDE[name]] = value
            continue
        stack, number, inner = found.groups()
        prefix = f"{_STACKS[stack]}.{number}"
        if inner == _QKV:
            pieces = zip(_QKV_PARTS, value.chunk(3), strict=True)
            theirs |= {f"{prefix}.{part}": piece.contiguous() for part, piece in pieces}
        else:
            theirs[f"{prefix}.{biases.get(inner, _BLOCK[inner])}"] = value
    return theirs


def to_ours(tensors: Tensors, where: str) -> dict[str, Tensor]:
    """Bring weights of the released code or of Hugging Face to our names, float32.

    Args:
        tensors: by their names, with or without `module.` and `_orig_mod.`.
        where: they come from, for messages.

    Raises:
        WeightsError: for names of neither, a name that is there twice, numbers that are not floating-point, or a
            position table that is not the fixed one.
    """
    clean = _unwrapped(tensors, where)
    wrong = [name for name, value in clean.items() if not value.is_floating_point()]
    if wrong:
        raise WeightsError(f"{where}: weights are floating-point numbers, these are not: {some(wrong)}")
    if any("patch_embeddings.projection" in name for name in clean):
        ours, unknown = _from_hugging_face(clean)
    else:
        ours, unknown = _from_released(clean, where)
    if unknown:
        raise WeightsError(
            f"{where}: {len(unknown)} of {len(clean)} names belong to no VideoMAE that is known here:"
            f" {some(unknown)}; weights of VideoMAE, VideoMAE V2, MGMAE and of Hugging Face's VideoMAE can be read"
        )
    return {name: value.float() for name, value in ours.items()}


def _unwrapped(tensors: Tensors, where: str) -> dict[str, Tensor]:
    """Take what wrappers put before names off: torch.compile `_orig_mod.`, data-parallel training `module.`."""
    clean: dict[str, Tensor] = {}
    for name, value in tensors.items():
        bare = re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", ""))
        if bare in clean:
            raise WeightsError(f"{where}: {bare} is there twice, with and without the prefix of a wrapper")
        clean[bare] = value
    return clean


def _from_released(tensors: Tensors, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return (our tensors, names that are not known); encoders that were fine-tuned get their prefix."""
    ours: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.rpartition(".")[2] == "pos_embed":
            _check_positions(name, value, where)
        else:
            bare = re.match(r"(patch_embed|blocks|norm)\.", name)
            ours[f"encoder.{name}" if bare else name] = value
    known = pixel_names(_depth(ours, "encoder.blocks"), _depth(ours, "decoder.blocks")) | set(_HEAD)
    return ours, [name for name in ours if name not in known]


def _check_positions(name: str, table: Tensor, where: str) -> None:
    """Refuse a position table that is not the fixed one, which is made anew and not loaded."""
    fixed = table.ndim == 3 and torch.allclose(table[0].float(), sinusoid(*table.shape[1:]), atol=1e-3)
    if not fixed:
        raise WeightsError(f"{where}: {name} was learnt; only models with the fixed sine and cosine table can be read")


def _from_hugging_face(tensors: Tensors) -> tuple[dict[str, Tensor], list[str]]:
    """Return (our tensors, names that are not known); old and new names of the biases, with and without `videomae.`."""
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name in tensors:
        whole = f"videomae.{name}" if re.match(r"embeddings\.|encoder\.layer\.|layernorm\.", name) else name
        found = _IN_BLOCK.fullmatch(whole)
        stack, number, inner = found.groups() if found else ("", "", "")
        if whole in _THEIR_OUTSIDE:
            ours[_THEIR_OUTSIDE[whole]] = tensors[name]
        elif stack in _THEIR_STACKS and inner in _THEIR_BLOCK:
            ours[f"{_THEIR_STACKS[stack]}.{number}.{_THEIR_BLOCK[inner]}"] = tensors[name]
        elif stack in _THEIR_STACKS and inner in _QKV_PARTS:
            parts = [tensors.get(name.removesuffix(inner) + part) for part in _QKV_PARTS]
            there = [part for part in parts if part is not None]
            if len(there) == len(parts):
                ours[f"{_THEIR_STACKS[stack]}.{number}.{_QKV}"] = torch.cat(there)
        else:
            unknown.append(name)
    return ours, unknown
