import json
import os
import signal
import statistics

import pytest

from tests.training import tiny_run
from xlnet_jax import cli
from xlnet_jax.training import run, seeds
from xlnet_jax.training.reporting import Reporter


def test_the_spread_by_hand():
    summary = seeds.summarize(
        {3: {"dev_f1": 0.5}, 4: {"dev_f1": 0.9, "dev_suspicious": 1.0}, 5: {"dev_f1": 0.7}}
    )
    values = summary["metrics"]["dev_f1"]
    assert values["by_seed"] == {"3": 0.5, "4": 0.9, "5": 0.7}
    assert (values["max"], values["median"]) == (0.9, 0.7)
    assert values["mean"] == pytest.approx(0.7)
    assert values["std"] == pytest.approx(statistics.stdev([0.5, 0.9, 0.7]))
    assert summary["suspicious_seeds"] == [4]
    assert list(summary["metrics"]) == ["dev_f1"]
    lines = seeds.table(summary)
    assert "0.9000" in lines[1]
    assert lines[-1].startswith("warning: seeds [4]")


def test_one_seed_has_no_deviation():
    assert seeds.summarize({0: {"dev_f1": 0.5}})["metrics"]["dev_f1"]["std"] == 0.0


def test_the_last_or_the_best_evaluation_counts(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,loss,heldout_loss,dev_f1\n2,1.0,,\n2,,3.0,0.4\n4,,2.0,0.9\n6,,2.5,0.6\n8,0.5,,\n"
    )
    assert seeds.judged(tmp_path, "") == {"heldout_loss": 2.5, "dev_f1": 0.6}
    assert seeds.judged(tmp_path, "dev_f1") == {"heldout_loss": 2.0, "dev_f1": 0.9}
    assert seeds.judged(tmp_path, "heldout_loss") == {"heldout_loss": 2.0, "dev_f1": 0.9}
    # Of equals the first, whose checkpoint is the one that was kept.
    (tmp_path / "metrics.csv").write_text("step,dev_f1,dev_accuracy\n2,0.9,0.7\n4,0.9,0.8\n")
    assert seeds.judged(tmp_path, "dev_f1") == {"dev_f1": 0.9, "dev_accuracy": 0.7}


def test_a_run_without_evaluation_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n2,1.0\n")
    with pytest.raises(ValueError, match=r"was never evaluated; --seeds needs held-out data"):
        seeds.judged(tmp_path, "")


def test_every_seed_is_run_in_a_folder_of_its_own(shards, tmp_path, monkeypatch):
    ran = []

    def train(config, folder):
        ran.append((config["seed"], folder))
        (tmp_path / f"seed-{config['seed']}").mkdir()
        rows = f"step,heldout_loss\n4,{config['seed']}.5\n"
        (tmp_path / f"seed-{config['seed']}" / "metrics.csv").write_text(rows)
        return {}

    monkeypatch.setattr(run, "train", train)
    summary = seeds.train_seeds({**tiny_run.config(shards), "seed": 7}, str(tmp_path), 2)
    assert ran == [(7, str(tmp_path / "seed-7")), (8, str(tmp_path / "seed-8"))]
    assert summary["metrics"]["heldout_loss"]["mean"] == 8.0
    assert json.loads((tmp_path / "seeds.json").read_text()) == summary
    with pytest.raises(ValueError, match="--seeds must be at least 1, got 0"):
        seeds.train_seeds(tiny_run.config(shards), str(tmp_path), 0)


def test_sigterm_stops_all_seeds_and_the_same_command_goes_on(
    shards, tmp_path, monkeypatch, capsys
):
    progress, steps = Reporter.progress, []

    def disturbed(self, step):
        steps.append((self.folder.name, step))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        progress(self, step)

    monkeypatch.setattr(Reporter, "progress", disturbed)
    flags = tiny_run.flags(shards, tmp_path, train__steps=3, report__tensorboard=False)
    assert cli.main(["train", *flags, "--seeds=2"]) == 0
    assert steps == [("seed-0", 1), ("seed-0", 2)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "stopped by SIGTERM; the same command again goes on"
    assert not (tmp_path / "seeds.json").exists()
    assert cli.main(["train", *flags, "--seeds=2"]) == 0
    assert steps[2:] == [("seed-0", 3), *(("seed-1", step) for step in (1, 2, 3))]
    assert json.loads((tmp_path / "seeds.json").read_text())["seeds"] == [0, 1]
