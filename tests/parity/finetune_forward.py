"""Single-stream passes: hidden states of every layer and memory; heads are in `finetune_heads`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.parity import finetune_heads
from tests.parity import model_cases as mc
from tests.parity.case import Case, Result, relative_error, worst
from xlnet_jax.model.transformer import XLNet


def cases(root: Path) -> Iterator[Case]:
    return mc.named_cases(root, "finetune_forward", run_any)


def run_any(folder: Path, name: str, options: dict[str, Any]) -> Result:
    has_head = options["entry"] in finetune_heads.ENTRIES
    return (finetune_heads.run_case if has_head else run_case)(folder, name, options)


@functools.partial(jax.jit, static_argnums=0)
def run_model(model: XLNet, params: Any, tokens: Any, inputs: dict[str, Any]) -> Any:
    """Cases of equal form share one program."""
    return model.apply(params, tokens, **inputs)


def run_case(folder: Path, name: str, options: dict[str, Any], **changes: Any) -> Result:
    """`changes` are fields of `RunConfig`, to run the case in another form."""
    assert options["entry"] in ("XLNetModel", "transformer_xl"), options["entry"]
    config, params = mc.load_model(folder)
    features = mc.arrays_of(np.load(folder / "inputs.npz"), name)
    wanted = mc.arrays_of(np.load(folder / "outputs.npz"), name)
    layout = mc.Layout(features["input_ids"].shape[1], bi_data=options["bi_data"])
    inputs: dict[str, Any] = {}
    if "seg_ids" in features:
        inputs["segment_ids"] = layout.time_first(features["seg_ids"], 1)
    if "input_mask" in features:
        inputs["padding"] = layout.time_first(features["input_mask"], 1) > 0
    if "perm_mask" in features:
        inputs["visible"] = layout.time_first(features["perm_mask"], 2) == 0
    if "mems" in features:
        inputs["memory"] = layout.memory_in(features["mems"])
    known = {"input_ids", "seg_ids", "input_mask", "perm_mask", "mems"}
    assert features.keys() <= known, f"{name}: unknown inputs {features.keys() - known}"
    model = XLNet(config, mc.run_config(options, **changes))
    tokens = layout.time_first(features["input_ids"], 1)
    params = {"params": params["params"]["xlnet"]}
    output = run_model(model, params, tokens, inputs)
    got = {"sequence_output": layout.hidden_out(output.hidden)}
    if output.memory is not None:
        got["new_mems"] = layout.memory_out(output.memory)
    absent = wanted.keys() - got.keys()
    assert not absent, f"{name}: nothing to compare with {absent}"
    return worst(
        {key: (relative_error(got[key], wanted[key]), mc.TOLERANCE) for key in sorted(wanted)}
    )
