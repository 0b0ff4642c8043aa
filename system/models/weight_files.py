"""Files of weights: safetensors of ours, folders of Hugging Face, pickles of the released code, local or in S3.

Whatever a file is, what comes out are tensors in our naming, float32. A checkpoint of a run is no such file:
train/warm_start.py reads it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from system import storage
from system.core.clip import TokenGrid
from system.errors import DataError, WeightsError
from system.models.pickles import unpickle
from system.models.weights import Tensors, to_ours

# In a safetensors file's metadata: `tubelet` says that the names are ours, `pt` is what Hugging Face looks for.
OURS = "tubelet"
MODEL_FILE = "model.safetensors"
# In the metadata of a fine-tuned model of ours: the names of its classes, a JSON list.
CLASSES = "classes"
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# In this order: a folder that has both was pickled first and converted later.
_FOLDER_FILES = (MODEL_FILE, "pytorch_model.bin")
# Bytes of one request.
_PIECE = 64 << 20


@dataclass(frozen=True)
class Weights:
    """Weights in our naming.

    Attributes:
        uri: where they come from.
        kind: what the file is, in words.
        tensors: float32, by our names.
        heads: (encoder's, decoder's) number of heads; None where nothing says it.
        classes: names of the classes of its head, by number; None where nothing says them.
        grid: of the clips that they were trained on; None where nothing says it.
    """

    uri: str
    kind: str
    tensors: Mapping[str, Tensor]
    heads: tuple[int | None, int | None] = field(default=(None, None))
    classes: tuple[str, ...] | None = None
    grid: TokenGrid | None = None


def is_file(uri: str) -> bool:
    """Say whether a URI names a file, and not a folder."""
    return uri.endswith(ENDINGS) or (not storage.is_s3(uri) and storage.local_path(uri).is_file())


def read_weights(uri: str) -> Weights:
    """Read a file of weights, or a folder with one.

    Raises:
        WeightsError: if nothing is there, it is damaged, could run code, or is of another kind of model.
        StorageFault: if storage does not answer.
    """
    return _read_file(uri, {}) if is_file(uri) else _read_folder(uri)


def _read_folder(uri: str) -> Weights:
    file = next((name for name in _FOLDER_FILES if _exists(storage.join(uri, name))), None)
    if file is None:
        raise WeightsError(
            f"{uri}: there are no weights; wanted is a file that ends in {', '.join(ENDINGS)}, a folder with"
            f" {' or '.join(_FOLDER_FILES)}, or a checkpoint, such as runs/NAME/checkpoints/step_00000500"
        )
    config_uri = storage.join(uri, "config.json")
    config: Any = {}
    if _exists(config_uri):
        try:
            config = json.loads(storage.read(config_uri))
        except ValueError as error:
            raise WeightsError(f"{config_uri} is not JSON: {error}") from error
        if not isinstance(config, dict) or config.get("model_type") != "videomae":
            kind = config.get("model_type") if isinstance(config, dict) else None
            raise WeightsError(f"{config_uri}: model_type is videomae for weights that can be read, got {kind!r}")
    return _read_file(storage.join(uri, file), config)


def _exists(uri: str) -> bool:
    try:
        return storage.exists(uri)
    except DataError as error:
        raise WeightsError(str(error)) from error


def _read_file(uri: str, config: Mapping[str, Any]) -> Weights:
    if not uri.endswith(ENDINGS):
        raise WeightsError(f"{uri}: a file of weights ends in {', '.join(ENDINGS)}; rename it")
    tensors, metadata = read_tensors(uri)
    if metadata.get("format") == OURS:
        heads = (_number(metadata.get("heads")), _number(metadata.get("decoder_heads")))
        return Weights(uri, "weights of this system", tensors, heads, _our_classes(metadata, uri))
    heads = (_number(config.get("num_attention_heads")), _number(config.get("decoder_num_attention_heads")))
    theirs = any("patch_embeddings.projection" in name for name in tensors)
    kind = "weights of Hugging Face's VideoMAE" if theirs else "weights of the released code"
    return Weights(uri, kind, to_ours(tensors, uri), heads, _their_classes(config))


def _our_classes(metadata: Mapping[str, str], uri: str) -> tuple[str, ...] | None:
    if CLASSES not in metadata:
        return None
    try:
        return tuple(str(name) for name in json.loads(metadata[CLASSES]))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{uri}: the names of its classes are not a JSON list: {error}") from error


def _their_classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that config.json names; None for the names that Hugging Face gives where it knows none."""
    named = config.get("id2label")
    if not isinstance(named, dict) or set(named) != {str(number) for number in range(len(named))}:
        return None
    names = tuple(str(named[str(number)]) for number in range(len(named)))
    return None if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names


def _number(value: Any) -> int | None:
    return int(value) if value is not None and str(value).isdigit() else None


def read_tensors(uri: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file, or the pickle that any other one is taken for.

    Returns:
        Its tensors by the names that they have there, and its metadata; a pickle has none.

    Raises:
        WeightsError: if it is missing, damaged, could run code, or holds no weights.
        StorageFault: if storage does not answer.
    """
    with _local_copy(uri) as path:
        if uri.endswith(".safetensors"):
            return _read_safetensors(path, uri)
        with tempfile.TemporaryDirectory() as folder:
            unpickle(path, Path(folder) / MODEL_FILE, uri)
            return _read_safetensors(Path(folder) / MODEL_FILE, uri)


def _read_safetensors(path: Path, uri: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{uri} is damaged, cut off, or no safetensors file: {error}") from error


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """Yield a path where an object can be read: the file itself, or a copy that is gone afterwards.

    Raises:
        WeightsError: if there is no such object or it may not be read.
        StorageFault: if storage does not answer.
    """
    try:
        size = storage.size(uri)
        if not storage.is_s3(uri):
            storage.read(uri, 0, min(1, size))  # a folder, or a file that may not be read, says so here
            yield storage.local_path(uri)
            return
        with tempfile.NamedTemporaryFile(suffix=Path(uri).suffix) as file:
            for start in range(0, size, _PIECE):
                file.write(storage.read(uri, start, min(start + _PIECE, size)))
            file.flush()
            yield Path(file.name)
    except storage.MissingError as error:
        raise WeightsError(f"{uri}: there is no such file") from error
    except DataError as error:
        raise WeightsError(str(error)) from error


def write_weights(uri: str, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write tensors as one safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, dict(metadata))
        storage.upload(path, uri)


def our_metadata(
    heads: tuple[int | None, int | None], classes: Sequence[str] | None = None, **more: str
) -> dict[str, str]:
    """Return the metadata of a file in our naming: what its tensors do not say."""
    known = {"heads": heads[0], "decoder_heads": heads[1]}
    named = {} if classes is None else {CLASSES: json.dumps(list(classes))}
    return {
        "format": OURS,
        **{name: str(count) for name, count in known.items() if count is not None},
        **named,
        **more,
    }
