import json

import numpy as np
import pytest

from configs import classify, glue
from tests.tasks import tiny_task
from xlnet_jax.tasks import classification
from xlnet_jax.training import run

ROWS = [("an orchard", "no"), ("a railway timetable near the river", "yes"), ("apples", "yes"),
        ("the old man explained it", "no"), ("a boat", "no")]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    lines = [f"{text}\t{label}\n" for text, label in ROWS]
    (path / "train.tsv").write_text("text\tlabel\n" + "".join(lines))
    (path / "several.tsv").write_text("text\tlabel\na\tx,y\nb\t\nc\ty\n")
    (path / "numbers.tsv").write_text("text\tlabel\na\t0.5\nb\t2\nc\t-1\n")
    (path / "hidden.tsv").write_text("text\nan apple\nboats\n")
    return path


@pytest.fixture(scope="module")
def task(folder):
    file = str(folder / "train.tsv")
    return tiny_task.make(
        classification, train=file, dev=file, test=str(folder / "hidden.tsv"), max_seq_length=16,
        pad_to_multiple=4,
    )  # fmt: skip


def other(folder, name, kind):
    file = str(folder / name)
    return tiny_task.make(classification, train=file, dev=file, kind=kind, max_seq_length=16)


def test_features_and_what_is_stored(task):
    features = task.features("train")
    assert len(features) == 5
    assert (features.side, features.fill) == ("left", {"tokens": 0, "segment_ids": 4})
    assert features.values["labels"].tolist() == [0, 1, 1, 0, 0]
    batch = features.batch(np.array([4]), 16)
    assert batch["segment_ids"][0, -3:].tolist() == [0, 0, 2]
    assert set(batch["segment_ids"][0, :-5]) == {4}
    assert task.resolved_data() == {"labels": ("no", "yes")}
    assert "labels" not in task.features("test").values
    assert task.eval_splits == ("dev",)
    assert task.introduction.startswith("5 training features of ")


def test_more_padding_changes_nothing(task):
    params, outputs = tiny_task.fresh(task)
    features = task.features("dev")
    short, long = (tiny_task.numbers(features.batch(np.arange(5), n)) for n in (12, 16))
    losses, found, total = outputs(params, short)
    logits = np.asarray(found["logits"])
    assert logits.shape == (5, 2)
    assert np.ptp(logits[:, 0]) > 1e-3
    again = outputs(params, long)
    np.testing.assert_allclose(logits, again[1]["logits"], atol=1e-5)
    np.testing.assert_allclose(losses, again[0], atol=1e-5)
    wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), short["labels"]]
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(total.total, wanted.sum(), rtol=1e-5)


def test_losses_of_the_other_kinds(folder):
    logits = np.array([[0.3], [-1.0], [2.0]], np.float32)
    numbers = other(folder, "numbers.tsv", "regression")
    numbers.apply = lambda params, batch, key: logits
    batch = numbers.features("train").batch(np.arange(3), 16)
    assert numbers.model.num_outputs == 1
    np.testing.assert_allclose(numbers.example_losses({}, batch, None), [0.04, 9, 9], rtol=1e-5)
    assert numbers.resolved_data() == {}
    several = other(folder, "several.tsv", "multi_label")
    several.apply = lambda params, batch, key: np.hstack([logits, -logits])
    batch = several.features("train").batch(np.arange(3), 16)
    both, hot = np.hstack([logits, -logits]), np.array([[1, 1], [0, 0], [0, 1]])
    wanted = (np.log1p(np.exp(both)) - both * hot).mean(axis=1)
    np.testing.assert_allclose(several.example_losses({}, batch, None), wanted, rtol=1e-5)
    assert several.resolved_data() == {"labels": ("x", "y")}


def test_decisions_and_the_threshold(folder, task):
    logits = np.array([[0.0, 0.4], [0.0, 0.6], [0.3, 0.0]])
    assert task.decisions(logits).tolist() == [1, 1, 0]
    careful = tiny_task.make(
        classification, train=str(folder / "train.tsv"), threshold=0.5, max_seq_length=16
    )
    assert careful.decisions(logits).tolist() == [0, 1, 0]
    assert careful.eval_splits == ()
    several = other(folder, "several.tsv", "multi_label")
    assert several.decisions(logits - 0.3).tolist() == [[0, 1], [0, 1], [0, 0]]
    number = other(folder, "numbers.tsv", "regression")
    assert number.decisions(logits[:, :1]).tolist() == [0, 0, 0.3]


def test_scores_by_kind(folder, task):
    right = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [0, 1]], float)
    got = task.score("dev", {"logits": right})
    assert got == {"accuracy": pytest.approx(0.8), "f1": pytest.approx(0.8)}
    numbers = other(folder, "numbers.tsv", "regression")
    assert numbers.score("dev", {"logits": np.array([[1.0], [4], [-2]])})["pearson"] > 0.99
    several = other(folder, "several.tsv", "multi_label")
    assert several.score("dev", {"logits": np.ones((3, 2))})["exact_match"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="the split 'test' has no labels to score against"):
        task.score("test", {"logits": right[:2]})


def test_a_degenerate_run_is_told(folder, task):
    same = {"logits": np.tile([0.0, 1.0], (5, 1))}
    assert task.warning("dev", same).startswith("5 of 5 predictions are 'yes'")
    assert task.warning("dev", {"logits": np.eye(5)[:, :2]}) == ""
    assert other(folder, "numbers.tsv", "regression").warning("dev", same) == ""


def test_predictions_by_name(folder, task, tmp_path):
    logits = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    task.write_predictions("test", {"logits": logits}, str(tmp_path))
    assert (tmp_path / "test.tsv").read_text() == "index\tprediction\n0\tyes\n1\tno\n"
    first = json.loads((tmp_path / "test.json").read_text())[0]
    assert first == {"id": "test-1", "prediction": "yes", "logits": [0.0, 1.0]}
    several = other(folder, "several.tsv", "multi_label")
    several.write_predictions("dev", {"logits": np.ones((3, 2))}, str(tmp_path / "a.tsv"))
    assert (tmp_path / "a.tsv").read_text().splitlines()[1] == "0\tx,y"


def test_glue_submissions_have_the_names_its_server_wants(tmp_path):
    header = "index\tsentence1\tsentence2"
    (tmp_path / "train.tsv").write_text(f"{header}\tlabel\n0\ta\tb\tentailment\n")
    (tmp_path / "test.tsv").write_text(f"{header}\n0\ta\tb\n")
    task = tiny_task.make(classification, name="rte", folder=str(tmp_path))
    task.write_predictions("test", {"logits": np.array([[0.0, 1.0]])}, str(tmp_path / "out"))
    table = (tmp_path / "out/RTE.tsv").read_text()
    assert table == "index\tprediction\n0\tnot_entailment\n"


def test_no_vocabulary_is_one_clear_line(folder):
    with pytest.raises(
        ValueError, match=r"there is no vocabulary: config.init_from is empty or has no spiece"
    ):
        tiny_task.make(classification, tokenizer=None, train=str(folder / "train.tsv"))
    with pytest.raises(ValueError, match=r"config.data.summary_type is 'cls', wanted one of last"):
        tiny_task.make(classification, train="x", summary_type="cls")
    with pytest.raises(ValueError, match=r"wanted config.data.pad_to_multiple 0, got 16"):
        tiny_task.make(classification, train="x", summary_type="mean", count_padding=True)


def test_a_file_that_is_not_there_is_named_with_its_key(folder):
    gone = {"train": str(folder / "train.tsv"), "dev": "gone.tsv"}
    with pytest.raises(FileNotFoundError, match=r"^config\.data\.dev: no file gone\.tsv$"):
        tiny_task.make(classification, **gone).features("dev")
    with pytest.raises(FileNotFoundError, match=r"^config\.data\.train: no file gone\.tsv$"):
        tiny_task.make(classification, train="gone.tsv")
    published = tiny_task.make(classification, name="rte", folder="gone")
    with pytest.raises(FileNotFoundError, match=r"^config\.data\.folder: no file gone/train\.tsv$"):
        published.features("train")


def test_splits_are_scored_whole_or_not_at_all(folder):
    with pytest.raises(ValueError, match=r"^train.eval_steps is 2, wanted 0: .* of whole splits"):
        tiny_task.make(classification, train=str(folder / "train.tsv"), eval_steps=2)


def test_padding_counts_in_the_summary_if_asked_for(folder):
    options = {"train": str(folder / "train.tsv"), "summary_type": "mean", "pad_to_multiple": 0}
    fixed, reference = (
        tiny_task.make(classification, count_padding=choice, **options) for choice in (False, True)
    )
    assert (fixed.model.count_padding, reference.model.count_padding) == (False, True)


def test_train_evaluate_and_predict_end_to_end(tmp_path, capsys):
    """A tiny network learns which of two words a text has; labels are found and stored."""
    rows = [f"{a} {b} {c},{c}\n" for a in ("old", "new") for b in ("a", "the") for c in
            ("river", "bridge")]  # fmt: skip
    (tmp_path / "train.csv").write_text("review,kind\n" + "".join(rows) + "\nshort\n")
    config = tiny_task.quick(classify.get_config("own"), tmp_path)
    config.data.train = config.data.dev = str(tmp_path / "train.csv")
    config.data.text_a, config.data.label = "review", "kind"
    workdir = tmp_path / "run"
    metrics = run.train(config.to_dict(), str(workdir))
    assert metrics["dev_accuracy"] == 1.0
    assert "1 rows dropped, fewer than 2 columns (line 11)" in capsys.readouterr().out
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["data"]["labels"] == ["bridge", "river"]
    (tmp_path / "train.csv").rename(tmp_path / "dev.csv")
    stored["data"]["dev"] = str(tmp_path / "dev.csv")
    stored["data"]["labels"] = tuple(stored["data"]["labels"])
    (found,) = run.evaluate(stored, str(workdir))
    assert (found["dev_accuracy"], found["dev_features"]) == (1.0, 8)
    (tmp_path / "new.csv").write_text("review\nnew river\nold bridge\nthe bridge\n")
    stored["data"]["test"] = str(tmp_path / "new.csv")
    assert run.predict(stored, str(workdir), split="test", output=str(tmp_path / "a.tsv")) == 3
    answers = (tmp_path / "a.tsv").read_text().split()[3::2]
    assert answers == ["river", "bridge", "bridge"]


def test_recipes_with_behaviours_differ_in_the_optimizer_and_in_padding():
    for module, name in ((glue, "mnli"), (classify, "yelp5")):
        fixed, reference = (module.get_config(f"{name},behaviour={b}").to_dict() for b in
                            ("fixed", "reference"))  # fmt: skip
        assert reference["optimizer"].pop("bias_correction") == "reference"
        assert fixed["optimizer"].pop("bias_correction") == "always"
        assert reference["data"].pop("count_padding") is True
        assert fixed["data"].pop("count_padding") is False
        assert fixed == reference
