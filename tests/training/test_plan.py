"""Plans: the arithmetic of an estimate, names of slices, the command."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_hlo_costs import LOOP, TILE
from xlnet_jax import cli, config_files
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.training import plan, plan_search, topologies
from xlnet_jax.training.plan import Memory
from xlnet_jax.training.plan_inputs import plan_inputs
from xlnet_jax.training.program import make_program
from xlnet_jax.training.sharding import AXES, make_mesh
from xlnet_jax.verbs import plan as verb

CONFIGS = Path(__file__).parents[2] / "configs"
KEYS = [
    "hbm_gib_per_core", "hbm_limit_gib", "flops_per_core", "bytes_per_core",
    "collective_bytes_per_core", "step_seconds", "sequences_per_second", "mfu", "run_hours",
    "chip_hours", "bound",
]  # fmt: skip
SMALL = [
    "--config.model.n_layer=2", "--config.model.d_model=16", "--config.model.n_head=2",
    "--config.model.d_head=8", "--config.model.d_inner=24", "--config.model.mem_len=8",
    "--config.data.seq_len=16", "--config.data.reuse_len=8", "--config.data.perm_size=8",
    "--config.data.num_predict=4", "--vocab_size=50",
]  # fmt: skip
DEVICE = topologies.Device("a core", 1e3, 1e2, 1e9, 10.0, 10.0, 2)


def run_cli(capsys, *arguments):
    status = cli.main(["plan", f"--config={CONFIGS / 'pretrain.py'}:tiny", *arguments])
    return status, capsys.readouterr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("del config.train['steps']", "the config lacks train.steps"),
        ("del config.data['seq_len']", "the config lacks data.seq_len"),
        ("config.mesh.more = 1", "keys that nothing reads: mesh.more; known here: mesh.data"),
    ],
)
def test_keys_that_are_missing_or_unknown_are_named(tmp_path, capsys, change, message):
    (tmp_path / "own.py").write_text(
        "from configs import pretrain\ndef get_config():\n"
        f"    config = pretrain.get_config('tiny')\n    {change}\n    return config\n"
    )
    assert cli.main(["plan", f"--config={tmp_path / 'own.py'}", "--topology=cpu"]) == 2
    assert message in capsys.readouterr().err


def test_the_arithmetic_of_an_estimate():
    work = plan.measure(LOOP, DEVICE, 4)
    product, traffic = 2 * 8 * 16 * 32 / 1e3, 2 * TILE / 1e2
    assert traffic > product
    rest = (2 * TILE + 4) / 1e2
    assert work.memory_seconds == pytest.approx(3 * traffic + rest)
    assert work.compute_seconds == 0
    assert work.collectives == {"all-reduce": 3 * TILE}
    # A ring of 4: what every device sends is 2 × 3/4 of the sum.
    assert work.collective_seconds == pytest.approx(3 * 1.5 * TILE / 10)
    assert work.compiler_seconds == pytest.approx(3 * 470 / 10)
    assert work.flops == 3 * work.flops_once
    assert work.bound == "interconnect"
    near = DEVICE._replace(link_bandwidth=1e9)
    assert plan.measure(LOOP, near, 4).bound == "hbm_bandwidth"
    assert plan.measure(LOOP, near._replace(hbm_bandwidth=1e9), 4).bound == "compute"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO"
            " temporaries (20.5G) exceeds available HBM (15.5G).",
            (20.5 * 2**30 + 100, 15.5 * 2**30),
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space"
            " hbm. Used 17.25G of 15.50G hbm. Exceeded hbm capacity by 1.75G.",
            (17.25 * 2**30, 15.5 * 2**30),
        ),
    ],
)
def test_the_compilers_complaint_is_read(message, wanted):
    assert plan.read_exhaustion(message, arguments=100.0) == wanted


def test_other_complaints_are_passed_on():
    with pytest.raises(ValueError, match=r"the compiler says: INTERNAL: bad luck$"):
        plan.read_exhaustion("INTERNAL: bad luck\nmore", 0.0)


@pytest.mark.parametrize("most", [0, 2, 7, 30, 61, 1000])
@pytest.mark.parametrize("group", [1, 2])
def test_the_search_finds_the_most_rows(most, group):
    tried = {}
    for _ in range(12):
        rows = plan_search.next_rows(tried, group, 8)
        if rows in tried or rows == 0:
            break
        tried[rows] = Memory(1000.0, 100.0 * rows + 7, 0.0, 1000.0 + 100.0 * most + 50)
    fitting = [rows for rows, used in tried.items() if used.fits]
    found = max(fitting, default=0)
    assert most // group * group - found <= plan_search.CLOSE * found
    assert len(tried) <= 5


def test_cloud_names():
    cores = {name: topologies.TOPOLOGIES[name] for name in ("v3-8", "v3-512", "v3-2048", "v2-32")}
    assert [*cores.values()] == ["v3:2x2", "v3:16x16", "v3:32x32", "v2:4x4"]  # two cores a chip
    assert topologies.TOPOLOGIES["v4-8"] == "v4:2x2x1"
    assert topologies.TOPOLOGIES["v5e-16"] == "v5e:4x4"
    for name, shape in topologies.TOPOLOGIES.items():
        version, _, size = name.partition("-")
        chips = 1
        for side in shape.partition(":")[2].split("x"):
            chips *= int(side)
        assert int(size) == chips * (1 if version in ("v5e", "v6e") else 2), name


def test_an_unknown_slice_is_one_line_with_the_known_ones(capsys):
    status, shown = run_cli(capsys, "--topology=v3-9")
    assert status == 2
    assert shown.err.count("\n") == 1
    assert "v3-{8, 32, 128" in shown.err


def test_gpus_are_no_slice(capsys):
    status, shown = run_cli(capsys, "--topology=gpu")
    assert status == 2
    assert "--topology=gpu: unknown slice, wanted one of" in shown.err


def test_rows_are_not_given_where_they_are_looked_for(capsys):
    status, shown = run_cli(capsys, "--topology=cpu", "--find-batch", "--rows=8")
    assert status == 2
    assert "--rows is 8, but --find-batch looks for that number: leave out --rows" in shown.err


@pytest.mark.parametrize("flag", ["vocab_size", "length", "rows"])
def test_numbers_below_1_are_refused(capsys, flag):
    status, shown = run_cli(capsys, "--topology=cpu", f"--{flag}=0")
    assert status == 2
    assert f"--{flag} is 0, wanted at least 1" in shown.err


def test_plan_of_this_machine(capsys):
    status, shown = run_cli(capsys, "--topology=cpu", "--json", "--rows=8", *SMALL)
    assert status == 0
    report = json.loads(shown.out)
    assert [*report] == [*KEYS, "detail"]
    detail = report["detail"]
    assert detail["rows_per_core"] == detail["batch_size"] == 8
    assert detail["flops"] > detail["flops_once"] > 0
    assert report["bytes_per_core"] > detail["bytes_once"] > 0
    assert report["collective_bytes_per_core"] == 0
    assert report["sequences_per_second"] == pytest.approx(8 / report["step_seconds"])
    assert report["run_hours"] == pytest.approx(report["step_seconds"] * 2000 / 3600)
    assert report["hbm_gib_per_core"] < report["hbm_limit_gib"]
    assert any(line.startswith("bound by") for line in verb.table(report))


def test_a_batch_that_cannot_be_cut(capsys):
    odd = "--config.train.batch_size=7"
    status, shown = run_cli(capsys, "--topology=cpu", *SMALL, odd)
    assert status == 2
    assert "train.batch_size must be a multiple of 2" in shown.err


def stand_in(config, topology, *, rows=None, **options):
    """A plan without compiling: 2 MB, of which a row takes the more the less is recomputed.

    Accumulated gradients take as much as the parameters.
    """
    parts = config["train"]["accumulation_steps"]
    rows = rows or config["train"]["batch_size"] // parts
    config = {**config, "train": {**config["train"], "batch_size": rows * parts}}
    planned = plan_inputs(config, **options)
    policies = ("full", "dots", "attention", "none")
    each = 1e4 * (1 + policies.index(planned.settings.run.remat))
    memory = Memory(1e6, rows * each + (2e5 if parts > 1 else 0), 0.0, 2e6)
    work = plan.measure(LOOP, DEVICE, 4) if memory.fits else None
    return plan.Plan(planned, topology, DEVICE, dict.fromkeys(AXES, 1), memory, work, 0.0)


def test_not_enough_memory_names_what_fits(capsys, monkeypatch):
    monkeypatch.setattr(plan, "make_plan", stand_in)
    status, shown = run_cli(capsys, "--topology=cpu", *SMALL, "--rows=256")
    assert status == 2
    (line,) = [line for line in shown.err.splitlines() if "error" in line]
    assert "256 rows a core with model.remat=none need 0.01 GiB" in line
    assert "24 rows fit with --config.model.remat=none (--config.train.batch_size=24)" in line
    parts = "the batch of 256 fits so with --config.train.accumulation_steps=16, 16 rows a core"
    assert parts in line


def test_parts_of_a_batch_are_tried_until_one_fits_beside_the_sum_of_gradients(monkeypatch):
    monkeypatch.setattr(plan, "make_plan", stand_in)
    overrides = ["--config.train.batch_size=48"]
    config = config_files.load(f"{CONFIGS / 'pretrain.py'}:tiny", overrides).to_dict()
    options = {"vocab_size": 50, "length": None}
    fitting = plan_search.fitting_plan(config, "cpu", **options)
    tried = []
    made = plan_search.in_more_parts(config, "cpu", fitting, tried.append, **options)
    assert [each.rows for each in tried] == [24, 16]
    assert made is tried[-1]
    assert made.planned.settings.train.batch_size == 48


def test_a_stricter_policy_is_named_where_no_row_fits_otherwise(monkeypatch):
    def larger(config, topology, *, rows, **options):
        made = stand_in(config, topology, rows=rows, **options)
        more = dataclasses.replace(made.memory, temporaries=made.memory.temporaries * 20)
        return dataclasses.replace(made, memory=more)

    monkeypatch.setattr(plan, "make_plan", larger)
    config = config_files.load(f"{CONFIGS / 'pretrain.py'}:tiny").to_dict()
    found = plan_search.fitting_plan(config, "cpu", vocab_size=50, length=None)
    assert found is not None
    assert (found.planned.settings.run.remat, found.rows) == ("dots", 2)


def test_most_rows_for_each_policy(capsys, monkeypatch):
    monkeypatch.setattr(plan, "make_plan", stand_in)
    status, shown = run_cli(capsys, "--topology=cpu", *SMALL, "--find-batch", "--json")
    assert status == 0
    found = {row["remat"]: row["detail"]["rows_per_core"] for row in json.loads(shown.out)}
    assert found == {"none": 24, "attention": 32, "dots": 50, "full": 100}


def test_layouts_are_compared(capsys):
    status, shown = run_cli(capsys, "--topology=cpu", *SMALL, "--rows=2", "--sweep")
    assert status == 0
    title, *lines = shown.out.splitlines()
    assert title.split()[:3] == ["data", "fsdp", "model"]
    assert [line.split()[:3] for line in lines] == [["1", "1", "1"]]


@pytest.mark.parametrize("recipe", ["glue.py:sst-2", "squad.py", "race.py", "ner.py"])
def test_fine_tuning_is_planned_without_data(recipe, tmp_path):
    path = tmp_path / "network.json"
    path.write_text(XLNetConfig(20, 8, 1, 2, 4, 8, "gelu").to_json())
    overrides = [f"--config.model.network={path}", "--config.train.batch_size=2"]
    config = config_files.load(str(CONFIGS / recipe), overrides).to_dict()
    planned = plan_inputs(config, None, 160)
    assert planned.batch["tokens"].shape[-1] == 160
    program = make_program(planned.settings, planned.task, make_mesh())
    assert "stablehlo.while" in program.lower(planned.batch).as_text()


def test_fine_tuning_needs_a_network():
    config = config_files.load(str(CONFIGS / "glue.py")).to_dict()
    with pytest.raises(ValueError, match=r"say which network to plan for.*base\|large"):
        plan_inputs(config, None, None)


def test_layouts_to_compare():
    meshes = [*plan_search.layouts({"model": {"n_head": 2}}, 8)]
    assert {"data": 8, "fsdp": 1, "model": 1} in meshes
    assert {"data": 1, "fsdp": 8, "model": 1} in meshes
    assert {mesh["model"] for mesh in meshes} == {1, 2}
    assert all(mesh["data"] * mesh["fsdp"] * mesh["model"] == 8 for mesh in meshes)


def test_without_the_compiler_the_line_says_what_to_install():
    arguments = ["plan", f"--config={CONFIGS / 'pretrain.py'}:tiny", "--topology=v3-8", *SMALL]
    hidden = "import sys; sys.modules['libtpu'] = None; from xlnet_jax import cli; "
    ended = subprocess.run(
        [sys.executable, "-c", f"{hidden}sys.exit(cli.main({arguments}))"],
        env={name: value for name, value in os.environ.items() if name != "TPU_LIBRARY_PATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "xlnet-jax[tpu]" in ended.stderr.splitlines()[-1]


def test_a_small_model_on_v3(capsys):
    status, shown = run_cli(capsys, "--topology=v3-8", "--json", "--rows=2", *SMALL)
    assert status == 0
    report = json.loads(shown.out)
    assert report["hbm_limit_gib"] == 15.48
    assert report["detail"]["devices"] == 8
    assert report["collective_bytes_per_core"] > 0
    assert report["detail"]["compiler_seconds"] > 0


def test_a_program_that_compiles_and_does_not_fit_is_too_much():
    told = {"hbm_limit_gib": 15.5, "step_seconds": 1.0, "sequences_per_second": 9.0, "mfu": 0.1}
    assert verb._brief({**told, "hbm_gib_per_core": 17.0}) == (
        "17.00 of 15.50 GiB: too much",
        "",
        "",
    )
    assert verb._brief({**told, "hbm_gib_per_core": 15.0}) == ("15.00 of 15.50 GiB", "9", "10.0%")
