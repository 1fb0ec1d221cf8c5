"""`xlnet-jax plan`: memory, speed and cost of a run on a TPU slice, without having one."""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

TAKES_OVERRIDES = True

SUMMARY = "compile a run for a TPU slice without having one: memory, speed, cost"

DESCRIPTION = """\
Compiles the train step of a config for a named slice (v2 to v6e; needs no TPU and no data) and
reports what one step needs of a core's memory, what it computes, moves and sends, and how long it
and the whole run take. Compiling takes some minutes.

Times are estimates from published figures of the hardware: each operation at the peak of the
product unit or at the bandwidth of HBM, whichever takes longer, and communication on top.

Cloud names count cores for v2, v3, v4 and v5p (v3-8 is four chips), chips for v5e and v6e.
"""

EXAMPLES = """\
  xlnet-jax plan --config=configs/pretrain.py:large --topology=v3-512
  xlnet-jax plan --config=configs/pretrain.py:base --topology=v3-8 --find-batch
  xlnet-jax plan --config=configs/squad.py --topology=v3-8 --config.model.network=large --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="config file")
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="Cloud name of a slice (v3-8, v3-512, v4-32, v5e-16, ...); cpu: this machine",
    )
    parser.add_argument(
        "--vocab_size",
        type=int,
        metavar="N",
        help="pieces of the vocabulary, where the config leaves them open (default: 32000)",
    )
    parser.add_argument(
        "--length", type=int, metavar="N", help="tokens of an example (default: the config's)"
    )
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help="batch rows of a core at a time (default: what the config's batch size gives)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--find-batch",
        action="store_true",
        help="the most rows of a core for each remat policy (to within 2 %%)",
    )
    what.add_argument("--sweep", action="store_true", help="compare layouts (shapes of the mesh)")


def run(args: argparse.Namespace) -> int:
    """Plans, and prints."""
    for name in ("vocab_size", "length", "rows"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}, wanted at least 1")
    if args.find_batch and args.rows is not None:
        raise ValueError(
            f"--rows is {args.rows}, but --find-batch looks for that number: leave out --rows"
        )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from xlnet_jax import config_files

    config = config_files.load(args.config, args.overrides).to_dict()

    from xlnet_jax.training import settings, topologies

    settings.check_keys(config)
    topologies.check_name(args.topology)
    options = {"vocab_size": args.vocab_size, "length": args.length}
    if args.find_batch:
        return _find_batch(config, args, options)
    if args.sweep:
        return _sweep(config, args, {**options, "rows": args.rows})
    return _one(config, args, options)


def _one(config: dict[str, Any], args: argparse.Namespace, options: dict[str, Any]) -> int:
    from xlnet_jax.training import plan, plan_search

    made = plan.make_plan(config, args.topology, rows=args.rows, **options)
    if not made.memory.fits:
        _say("does not fit; looking for what does")
        fitting = plan_search.fitting_plan(config, args.topology, _tell, **options)
        parted = None
        if fitting:
            batch = made.planned.settings.train.batch_size  # with --rows another than the config's
            config = {**config, "train": {**config["train"], "batch_size": batch}}
            parted = plan_search.in_more_parts(config, args.topology, fitting, _tell, **options)
        raise ValueError(_does_not_fit(made, fitting, parted))
    report = made.report()
    print(json.dumps(report, indent=2) if args.json else "\n".join(table(report)))
    return 0


def _does_not_fit(made: Any, fitting: Any, parted: Any) -> str:
    detail = made.report()["detail"]
    text = (
        f"{detail['rows_per_core']} rows a core with model.remat={detail['remat']} need"
        f" {made.memory.needed / 2**30:.2f} GiB of the {made.memory.limit / 2**30:.2f} GiB of a"
        f" {made.device.kind} core, {detail['exceeds_by_gib']:.2f} GiB too many"
    )
    if fitting is None:
        return f"{text}; nothing fits: set config.mesh.fsdp or config.mesh.model above 1"
    found = fitting.report()["detail"]
    text += (
        f"; {found['rows_per_core']} rows fit with --config.model.remat={found['remat']}"
        f" (--config.train.batch_size={found['batch_size']})"
    )
    if parted is None:
        return text
    parts = parted.report()["detail"]["accumulation_steps"]
    return (
        f"{text}; the batch of {detail['batch_size']} fits so with"
        f" --config.train.accumulation_steps={parts}, {parted.rows} rows a core at a time"
    )


def _find_batch(config: dict[str, Any], args: argparse.Namespace, options: dict[str, Any]) -> int:
    from xlnet_jax.model.config import REMAT_POLICIES
    from xlnet_jax.training import plan_search

    rows = []
    for remat in REMAT_POLICIES:
        found = plan_search.largest_rows(config, args.topology, remat, _tell, **options)
        rows.append({"remat": remat, **(found.report() if found else {"detail": None})})
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    lines: list[tuple[str, ...]] = [("model.remat", "rows a core", "HBM", "sequences/s", "MFU")]
    for row in rows:
        if row["detail"] is None:
            lines.append((row["remat"], "0", "", "", ""))
        else:
            count = f"{row['detail']['rows_per_core']}"
            lines.append((row["remat"], count, *_brief(row)))
    print("\n".join(_aligned(lines)))
    return 0


def _sweep(config: dict[str, Any], args: argparse.Namespace, options: dict[str, Any]) -> int:
    from xlnet_jax.training import plan_search

    reports: list[dict[str, Any]] = []
    lines: list[tuple[str, ...]] = [
        ("data", "fsdp", "model", "HBM", "sequences/s", "MFU", "communication")
    ]
    for made in plan_search.sweep(config, args.topology, **options):
        if isinstance(made, str):
            _say(made)
            continue
        _tell(made)
        report = made.report()
        reports.append(report)
        sent = report["collective_bytes_per_core"]
        mesh = report["detail"]["mesh"]
        sizes = tuple(str(mesh[axis]) for axis in ("data", "fsdp", "model"))
        lines.append((*sizes, *_brief(report), f"{sent / 1e9:.2f} GB" if sent is not None else ""))
    print(json.dumps(reports, indent=2) if args.json else "\n".join(_aligned(lines)))
    return 0


def _tell(made: Any) -> None:
    """One plan of several, while others are still to come."""
    report = made.report()
    mesh = " × ".join(f"{axis} {size}" for axis, size in made.mesh.items())
    memory, speed, _ = _brief(report)
    _say(
        f"model.remat={report['detail']['remat']}, mesh {mesh}, {made.rows} rows a core: {memory}"
        + (f", {speed} sequences/s" if speed else "")
        + f" (compiled in {made.compile_seconds:.0f} s)"
    )


def _brief(report: dict[str, Any]) -> tuple[str, str, str]:
    memory = f"{report['hbm_gib_per_core']:.2f} of {report['hbm_limit_gib']:.2f} GiB"
    # The compiler may take a program that does not fit.
    too_much = report["hbm_gib_per_core"] > report["hbm_limit_gib"]
    if too_much or report["step_seconds"] is None:
        return memory + ": too much", "", ""
    return memory, f"{report['sequences_per_second']:,.0f}", f"{report['mfu']:.1%}"


def table(report: dict[str, Any]) -> list[str]:
    """The lines that are printed of one plan."""
    detail = report["detail"]
    mesh = " × ".join(f"{axis} {size}" for axis, size in detail["mesh"].items())
    sent = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in detail["collectives"].items())
    seconds = (
        f"{report['step_seconds']:.4f} s: products {detail['compute_seconds']:.4f}, HBM"
        f" {detail['memory_seconds']:.4f}, communication {detail['collective_seconds']:.4f}"
    )
    hours = "depends on the data (train.epochs)"
    if report["run_hours"] is not None:
        hours = (
            f"{report['run_hours']:,.1f} hours, {report['chip_hours']:,.0f} chip-hours"
            f" ({detail['run_steps']:,} steps)"
        )
    lines = [
        ("slice", f"{detail['topology']}: {detail['devices']} × {detail['device']}, mesh {mesh}"),
        (
            "batch",
            f"{detail['batch_size']:,}: {detail['rows_per_core']} rows a core"
            f" × {detail['accumulation_steps']} accumulated; model.remat={detail['remat']}",
        ),
        (
            "HBM a core",
            f"{report['hbm_gib_per_core']:.2f} of {report['hbm_limit_gib']:.2f} GiB: arguments"
            f" {detail['arguments_gib']:.2f}, temporaries {detail['temporaries_gib']:.2f}, program"
            f" {detail['program_gib']:.2f}",
        ),
        (
            "products a core",
            f"{report['flops_per_core'] / 1e12:.3f} TFLOP a step"
            f" ({detail['flops_once'] / 1e12:.3f} with loops counted once)",
        ),
        (
            "HBM traffic",
            f"{report['bytes_per_core'] / 1e9:,.1f} GB a step"
            f" ({detail['bytes_once'] / 1e9:,.1f} with loops counted once)",
        ),
        ("communication", sent or "none"),
        ("step", seconds),
        ("speed", f"{report['sequences_per_second']:,.1f} sequences/s, MFU {report['mfu']:.1%}"),
        ("run", hours),
        ("bound by", report["bound"].replace("_", " ")),
    ]
    if detail["compiler_seconds"]:
        note = f"{detail['compiler_seconds']:.4f} s without communication, by its own cycle counts"
        lines.insert(-2, ("compiler says", note))
    return _aligned(lines)


def _aligned(lines: Iterable[tuple[str, ...]]) -> list[str]:
    rows = [list(line) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
