"""Files of RAFT-small's weights: torchvision's names or the original project's, as .pth or .safetensors.

Both hold the same 106 tensors. MGMAE used the original's, which torchvision calls C_T_V1. Nothing is loaded unless all
of it fits, and no file can run code.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import optical_flow

from system import storage
from system.errors import DataError, WeightsError

# The original's names, piece by piece, and torchvision's.
_NAMES = (
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"\.(layer\d\.\d)\.conv(\d)\.", r".\1.convnormrelu\2.0."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.", "update_block.recurrent_block.convgru1."),
)
# Keys that an error lists of each kind.
LISTED = 3


def torchvision_name(name: str) -> str:
    """Return torchvision's name of a tensor of the original RAFT-small; other names stay as they are."""
    for pattern, put in _NAMES:
        name = re.sub(pattern, put, name)
    return name


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state by torchvision's names: without DataParallel's prefix, the original's names translated."""
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if any(name.startswith(("fnet.", "cnet.")) for name in state):
        return {torchvision_name(name): value for name, value in state.items()}
    return dict(state)


def load_network(uri: str) -> optical_flow.RAFT:
    """Return RAFT-small with the weights at a URI, in eval mode on the CPU.

    Args:
        uri: path, file:// or s3://, of a .pth or a .safetensors file; what it is is told by its bytes.

    Raises:
        WeightsError: if the file is missing, is not a plain file of tensors, or belongs to another network.
        StorageFault: if storage does not answer.
    """
    state = _plain_names(_tensors(uri))
    network = optical_flow.raft_small(weights=None)
    own = network.state_dict()
    _check(uri, {name: tuple(value.shape) for name, value in own.items()}, state)
    network.load_state_dict(state)
    return network.eval()


def _tensors(uri: str) -> dict[str, Tensor]:
    """Read a file's tensors by their names in it."""
    try:
        data = storage.read(uri)
    except storage.MissingError as error:
        raise WeightsError(
            f"motion.weights={uri}: there is no such file; docs/motion.md says where to get one"
        ) from error
    except DataError as error:
        raise WeightsError(f"motion.weights={uri} cannot be read: {error}") from error
    try:
        # A safetensors file begins with the length of its header, which is JSON; no pickle has that.
        if data[8:9] == b"{":
            return safetensors.torch.load(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a torn or foreign file makes them raise
        raise WeightsError(
            f"motion.weights={uri} is not a file of tensors that loads without running code"
            f" ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__}); give RAFT-small's plain"
            " state dict, as .pth or .safetensors"
        ) from error
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"motion.weights={uri} holds no plain state dict (tensors by name), but"
            f" {_listed(list(state)) if isinstance(state, Mapping) else type(state).__name__}; save the model's"
            " state_dict() alone"
        )
    return dict(state)


def _check(uri: str, wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    """Refuse a state that is not exactly the wanted one."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    wrong = [
        f"{name} {shapes[name]}, not {wanted[name]}"
        for name in wanted
        if shapes.get(name, wanted[name]) != wanted[name]
    ]
    problems = [
        f"{kind}: {_listed(names)}"
        for kind, names in (
            ("missing", [name for name in wanted if name not in shapes]),
            ("unexpected", [name for name in shapes if name not in wanted]),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"motion.weights={uri} is not RAFT-small's: {'; '.join(problems)}. Give torchvision's raft_small file"
            " (C_T_V1 or C_T_V2) or the original's raft-small.pth; nothing was loaded"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(map(str, names[:LISTED])) + (f" and {more} more" if more > 0 else "")
