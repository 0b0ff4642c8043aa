"""Hugging Face's VideoMAE: the tensors and the two JSON files that its `from_pretrained` wants. Needs none of its code.

Written for transformers 5, whose biases are `query.bias` and `value.bias`; `old_biases` gives transformers 4 its
`q_bias` and `v_bias`, which 5 renames when it loads them. Layout there is (B, T, C, H, W), masks are True where hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from system.core.clip import TokenGrid
from system.core.targets import IMAGENET_MEAN, IMAGENET_STD
from system.errors import WeightsError
from system.models.blocks import NORM_EPS
from system.models.fit import LAST_NORM
from system.models.sizes import Shape
from system.models.weights import Tensors, encoder_names, pixel_names, some, to_hugging_face


@dataclass(frozen=True)
class Exported:
    """A model for Hugging Face.

    Attributes:
        tensors: by its names.
        config: of config.json.
        left: our tensors that have no place in it.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    left: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A model of ours, pre-trained or fine-tuned.

    Attributes:
        tensors: by our names.
        grid: the token grid of its clips.
        encoder: shape of the encoder.
        decoder: shape of the decoder.
    """

    tensors: Tensors
    grid: TokenGrid
    encoder: Shape
    decoder: Shape


def pretraining(model: Model, *, normalize_target: bool, old_biases: bool = False) -> Exported:
    """Return a model as `VideoMAEForPreTraining`: encoder with its last norm, pixel decoder, mask token.

    Raises:
        WeightsError: if the model has no pixel decoder of VideoMAE's form.
    """
    names = pixel_names(model.encoder.depth, model.decoder.depth)
    missing = names - model.tensors.keys()
    head = model.tensors.get("decoder.head.weight")
    wanted = (model.grid.values, model.decoder.width)
    if missing or head is None or tuple(head.shape) != wanted:
        what = f"it has no {some(missing)}" if missing else f"decoder.head.weight is not {wanted}"
        raise WeightsError(
            f"VideoMAEForPreTraining is an encoder and VideoMAE's pixel decoder, which this model is not: {what};"
            " export it with --format tubelet, or its encoder with --format hf-classification"
        )
    left = _left(model, names)
    kept = {name: model.tensors[name] for name in sorted(names)}
    config = _config(model, "VideoMAEForPreTraining") | {
        # Without it Hugging Face's model has no norm after the encoder, and its decoder sees other numbers.
        "use_mean_pooling": False,
        "norm_pix_loss": normalize_target,
    }
    return Exported(to_hugging_face(kept, old_biases=old_biases), config, left)


def _left(model: Model, names: Collection[str]) -> tuple[str, ...]:
    """Return the names that have no place in Hugging Face's model, and refuse those without which it is another one."""
    left = sorted(model.tensors.keys() - set(names))
    needed = [name for name in left if "positions" in name]
    if needed:
        raise WeightsError(
            f"Hugging Face's VideoMAE has the fixed position table, this model has learnt its own: {some(needed)};"
            " export it with --format tubelet"
        )
    return tuple(left)


def classification(model: Model, classes: Sequence[str], *, old_biases: bool = False) -> Exported:
    """Return a model as `VideoMAEForVideoClassification`: a fine-tuned one, or one whose head knows nothing yet.

    An encoder gets what the released code begins fine-tuning with: tokens are averaged, `fc_norm` is (1, 0) and not the
    encoder's last norm, which is left out. The classifier is zero, so that the files follow from the weights alone.

    Args:
        model: pre-trained or fine-tuned.
        classes: their names, by number.
        old_biases: names of transformers 4.

    Raises:
        WeightsError: if the model has no encoder of ours, or a head of another number of classes.
    """
    encoder = {name for name in encoder_names(model.encoder.depth) if name not in LAST_NORM}
    missing = encoder - model.tensors.keys()
    if missing:
        raise WeightsError(f"this model has no encoder of VideoMAE's form: it has no {some(missing)}")
    fresh = _fresh_head(model.encoder.width, len(classes))
    kept = {name: model.tensors[name] for name in sorted(encoder)}
    kept |= {name: model.tensors.get(name, value) for name, value in fresh.items()}
    if kept["head.weight"].shape != fresh["head.weight"].shape:
        raise WeightsError(f"this model has a head of {len(kept['head.weight'])} classes, not of {len(classes)}")
    config = _config(model, "VideoMAEForVideoClassification") | {
        "use_mean_pooling": True,
        "id2label": {str(number): name for number, name in enumerate(classes)},
        "label2id": {name: number for number, name in enumerate(classes)},
    }
    return Exported(to_hugging_face(kept, old_biases=old_biases), config, _left(model, kept))


def _fresh_head(width: int, classes: int) -> dict[str, Tensor]:
    return {
        "fc_norm.weight": torch.ones(width),
        "fc_norm.bias": torch.zeros(width),
        "head.weight": torch.zeros(classes, width),
        "head.bias": torch.zeros(classes),
    }


def _config(model: Model, architecture: str) -> dict[str, Any]:
    grid, encoder, decoder = model.grid, model.encoder, model.decoder
    return {
        "architectures": [architecture],
        "model_type": "videomae",
        "image_size": grid.height,
        "patch_size": grid.patch_px,
        "num_channels": 3,
        "num_frames": grid.num_frames,
        "tubelet_size": grid.tubelet_frames,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": 4 * encoder.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": NORM_EPS,
        "qkv_bias": True,
        "decoder_hidden_size": decoder.width,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": 4 * decoder.width,
    }


def preprocessor(size: int) -> dict[str, Any]:
    """Return preprocessor_config.json: short side and centre crop of `size` px, and ImageNet's statistics.

    The class's own default is a mean and deviation of 0.5, which no VideoMAE was trained with.
    """
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
