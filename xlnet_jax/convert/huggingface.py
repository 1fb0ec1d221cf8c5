"""Weights of Hugging Face transformers, read and written without PyTorch.

`model.safetensors` needs nothing but the package safetensors; `pytorch_model.bin` is a pickle and
needs PyTorch (the extra `hf`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import numpy as np
from etils import epath

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"  # of weights in several files


def has_weights(folder: epath.Path) -> bool:
    """Whether a folder has weights in one of the known files."""
    names = (SAFETENSORS, SAFETENSORS + _INDEX, BIN, BIN + _INDEX)
    return any((folder / name).exists() for name in names)


def find_weights(folder: epath.Path) -> list[epath.Path]:
    """The files that hold the weights; raises FileNotFoundError where there are none."""
    for name in (SAFETENSORS, BIN):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}{_INDEX}"
        if index.exists():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if absent := [file for file in files if not (folder / file).exists()]:
                raise FileNotFoundError(f"{os.fspath(index)} names {absent}, which are missing")
            return [folder / file for file in files]
    raise FileNotFoundError(f"{os.fspath(folder)} has no weights: wanted {SAFETENSORS} or {BIN}")


def read_tensors(folder: epath.Path) -> dict[str, np.ndarray]:
    """All tensors, float32, under the names of the models with a head ("transformer....").

    The weight that the language-model head shares with the embedding is checked and left out.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in find_weights(folder):
        tensors |= _read_bin(path) if path.suffix == ".bin" else _read_safetensors(path)
    trunk = ("word_embedding.", "mask_emb", "layer.")
    tensors = {
        f"transformer.{name}" if name.startswith(trunk) else name: array
        for name, array in tensors.items()
    }
    tensors = {name: array.astype(np.float32, copy=False) for name, array in tensors.items()}
    shared = tensors.pop("lm_loss.weight", None)
    embedding = tensors.get("transformer.word_embedding.weight")
    if shared is not None and (embedding is None or not np.array_equal(shared, embedding)):
        raise ValueError(
            f"{os.fspath(folder)}: lm_loss.weight differs from the word embedding, which this"
            " network shares with it"
        )
    return tensors


def _read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    import ml_dtypes
    import safetensors

    content = path.read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)} is not a whole safetensors file ({len(content)} bytes): {error}"
        ) from error
    types = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": ml_dtypes.bfloat16}
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in types:
            raise ValueError(
                f"{os.fspath(path)}: {name} is of type {entry['dtype']}, wanted one of"
                f" {', '.join(types)}"
            )
        flat = np.frombuffer(entry["data"], types[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def _read_bin(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{os.fspath(path)} can only be read by PyTorch: pip install 'xlnet-jax[hf]', or save"
            " it as safetensors"
        ) from error
    try:
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises of many kinds
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(f"{os.fspath(path)} cannot be read by PyTorch: {reason}") from error
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


def write_tensors(folder: epath.Path, tensors: Mapping[str, np.ndarray], *, as_bin: bool) -> None:
    """Writes model.safetensors, or pytorch_model.bin (which needs PyTorch)."""
    if not as_bin:
        from safetensors.numpy import save

        whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        (folder / SAFETENSORS).write_bytes(save(whole, metadata={"format": "pt"}))
        return
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{BIN} can only be written by PyTorch: pip install 'xlnet-jax[hf]'"
        ) from error
    state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    with (folder / BIN).open("wb") as file:
        torch.save(state, file)
