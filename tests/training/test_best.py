import numpy as np
import pytest

from xlnet_jax.tasks.scores import regression_scores
from xlnet_jax.training.best import is_better
from xlnet_jax.training.seeds import judged


def test_the_better_of_two_regressions_is_better_in_every_metric():
    targets = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    good, bad = (
        regression_scores(targets + np.array(noise, np.float32), targets)
        for noise in ([0.1, -0.1, 0.1, 0.0], [2.0, -2.0, 1.5, 0.0])
    )
    assert [name for name in good if not is_better(f"dev_{name}", good[name], bad[name])] == []


@pytest.mark.parametrize("metric", ["heldout_loss", "heldout_perplexity", "dev_mean_squared_error"])
def test_lower_is_better(metric):
    assert is_better(metric, 1.0, 2.0)
    assert not is_better(metric, 2.0, 1.0)


@pytest.mark.parametrize("metric", ["dev_f1", "dev_accuracy", "dev_pearson"])
def test_higher_is_better(metric):
    assert is_better(metric, 2.0, 1.0)
    assert not is_better(metric, 2.0, 2.0)


def test_over_seeds_the_lowest_error_counts(tmp_path):
    rows = "step,dev_mean_squared_error\n2,3.0\n4,1.0\n6,2.0\n"
    (tmp_path / "metrics.csv").write_text(rows)
    assert judged(tmp_path, "dev_mean_squared_error") == {"dev_mean_squared_error": 1.0}
