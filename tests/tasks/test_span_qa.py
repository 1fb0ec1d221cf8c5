"""The task as the engine sees it: files in, features, losses, scores and predictions out."""

import io
import json
import math

import jax
import numpy as np
import pytest

from configs import cmrc2018, drcd, squad
from tests.tasks.qa_files import CHINESE, ENGLISH, content, written
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.tasks import span_qa
from xlnet_jax.tasks.qa.config import FIXED, REFERENCE, DataConfig
from xlnet_jax.tasks.task import Context
from xlnet_jax.training import run
from xlnet_jax.training.settings import parse

STORY = (
    "Marta kept the lighthouse on Kihnu island for 31 years. She began in 1952, with oil.",
    [
        ("What did Marta keep?", [("lighthouse", 15), ("the lighthouse", 11)]),
        ("When did she begin?", [("1952", 69)]),
        ("Who bought it?", [], {"is_impossible": True}),
    ],
)
SHORT = ("Ann came.", [("Who came?", [("Ann", 0)])])


def sizes(vocab_size):
    return XLNetConfig(vocab_size, 8, 2, 2, 4, 16, "gelu", True)


def task_of(tokenizer=ENGLISH, **data):
    config = DataConfig(
        **({"max_seq_length": 32, "doc_stride": 6, "max_query_length": 8, "pad_to_multiple": 16}
           | data)
    )  # fmt: skip
    config.validate()
    run_config = RunConfig(
        dropout=0.0, activation_dropout=0.0, attention_dropout=0.0, dtype="float32"
    )
    context = Context(sizes, None, run_config, tokenizer, 0, 4, 3, "train.batch_size", 0)
    return span_qa.make_task(config, context)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return written(tmp_path_factory.mktemp("qa") / "story.json", STORY, SHORT)


@pytest.fixture(scope="module")
def task(story):
    """Training and held-out data, and compiled functions, for several tests."""
    made = task_of(train=story, dev=story)
    made.compiled_losses = jax.jit(lambda p, b: made.example_losses(p, b, None))
    made.compiled_predict = jax.jit(made.predict)
    made.params = jax.jit(made.init_params)(jax.random.key(0))
    return made


def predictions_of(task, other):
    """What the engine collects with the batches of `other`, in the order of the features."""
    found = {}
    for batch in other.predict_batches("dev", slice(0, 3)):
        outputs = jax.device_get(task.compiled_predict(task.params, batch))
        for row, index in enumerate(batch["index"]):
            if index >= 0:
                found[int(index)] = {name: array[row] for name, array in outputs.items()}
    return {name: np.stack([found[k][name] for k in sorted(found)]) for name in found[0]}


def test_training_batches_hold_answers_and_fillers_do_not_count(task):
    features = task.features("train")
    assert len(features) == len(task.read("train")[1])
    last = len(features) - 1
    batches = [features.batch(np.array(i), 32) for i in ([0, 1, last, -1], [last, -1, 1, 0])]
    losses, other = (np.asarray(task.compiled_losses(task.params, batch)) for batch in batches)
    assert (losses > 0).all()
    np.testing.assert_allclose(other[[0, 2, 3]], losses[[2, 1, 0]], rtol=1e-5)
    np.testing.assert_array_equal(batches[0]["weight"], [1, 1, 1, 0])


def test_a_filler_longer_than_its_batch_leaves_loss_and_gradient_finite(task):
    """It copies the first feature, whose positions lie beyond a batch of short windows."""
    features = task.features("train")
    short = int(np.argmin(features.lengths))
    length = int(features.lengths[short])
    assert features.values["cls_positions"][0] >= length
    batch = features.batch(np.array([short, -1]), length)
    for name in ("start_positions", "end_positions", "cls_positions"):
        batch[name][1] = length + 3
    batch = jax.device_put(batch)
    loss = jax.jit(jax.value_and_grad(lambda p: task.loss(p, batch, None, None).total))
    total, gradient = loss(task.params)
    assert 0 < total < 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_without_answerability_the_loss_lacks_that_term(task, story):
    spans = task_of(train=story, answerability=False)
    without = {name: value for name, value in task.params.items() if name != "answer_class"}
    shapes = jax.eval_shape(spans.init_params, jax.random.key(0))
    assert jax.tree.structure(without) == jax.tree.structure(shapes)
    batch = task.features("train").batch(np.arange(4), 32)
    only = jax.jit(lambda p, b: spans.example_losses(p, b, None))(without, batch)
    assert (task.compiled_losses(task.params, batch) > only).all()


def test_padding_changes_no_prediction(task, tmp_path):
    short = ("Ann came.", [(f"Who came {k}?", []) for k in range(3)])
    path = written(tmp_path / "dev.json", STORY, short)
    one, other = task_of(dev=path), task_of(dev=path, pad_to_multiple=0)
    bucketed, padded = predictions_of(task, one), predictions_of(task, other)
    names = {"start_log_probs", "starts", "end_log_probs", "ends", "answer_logits"}
    assert bucketed.keys() == padded.keys() == names
    allowed = padded["start_log_probs"] > -1e9  # forbidden positions are in any order
    assert {batch["tokens"].shape[1] for batch in one.predict_batches("dev", slice(0, 3))} == {
        16,
        32,
    }
    assert (bucketed["starts"] == padded["starts"])[allowed].all()
    for name in ("start_log_probs", "answer_logits"):
        np.testing.assert_allclose(bucketed[name], padded[name], rtol=1e-4, atol=1e-4)
    assert one.decode("dev", bucketed).answers() == one.decode("dev", padded).answers()


def right_answers(task, split):
    """Beams that are sure of the first answer of each question, and of answerability."""
    file, windows = task.read(split)
    _, trained = task_of(train=file.path).read("train")
    wanted = {q.id: k for k, q in enumerate(trained.questions)}
    shape = len(windows), 5, 5
    found = {
        "start_log_probs": np.full(shape[:2], -9.0), "starts": np.zeros(shape[:2], np.int32),
        "end_log_probs": np.full(shape, -9.0), "ends": np.zeros(shape, np.int32),
        "answer_logits": np.full(len(windows), 5.0),
    }  # fmt: skip
    for w, question in enumerate(windows.question):
        gold = wanted[windows.questions[question].id]
        if trained.gold.unanswerable[gold]:
            continue
        found["answer_logits"][w] = -5.0
        found["start_log_probs"][w, 0] = found["end_log_probs"][w, 0, 0] = -0.1
        found["starts"][w, 0] = trained.gold.first[gold] - windows.first[w]
        found["ends"][w, 0, 0] = trained.gold.last[gold] - windows.first[w]
    return found


def test_right_answers_score_in_full_by_both_rules(story, tmp_path):
    task = task_of(dev=story)
    found = task.score("dev", right_answers(task, "dev"))
    assert (found["best_exact"], found["best_f1"]) == (100, 100)
    assert found["best_f1_thresh"] == -5
    assert found["total"] == 4
    assert (
        task_of(dev=story, null_threshold=0.0).score("dev", right_answers(task, "dev"))["f1"] == 100
    )
    assert task.warning("dev", right_answers(task, "dev")) == ""

    chinese = written(tmp_path / "zh.json", ("敦煌在甘肃。", [("哪里", [("甘肃", 3)])]))
    task = task_of(CHINESE, dev=chinese, scoring="chinese", answerability=False)
    beams = right_answers(task_of(CHINESE, dev=chinese), "dev")
    del beams["answer_logits"]
    assert task.score("dev", beams)["total"] == 1


def test_a_model_that_names_no_span_is_suspicious(story):
    task = task_of(dev=story)
    beams = right_answers(task, "dev")
    beams["starts"][:] = 99
    assert "4 of 4 questions have no span of at most 64 pieces" in task.warning("dev", beams)


def test_predictions_go_to_a_folder_a_file_or_standard_output(story, tmp_path, capsys):
    task = task_of(dev=story, null_threshold=0.0)
    beams = right_answers(task, "dev")
    answers = {"q0": "lighthouse", "q1": "1952", "q2": "", "q3": "Ann"}
    task.write_predictions("dev", beams, str(tmp_path / "all"))
    names = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert names == ["nbest_predictions.json", "null_odds.json", "predictions.json"]
    for output in ("all/predictions.json", "new/one.json", "-"):
        if output == "new/one.json":
            task.write_predictions("dev", beams, str(tmp_path / output))
        if output == "-":
            task.write_predictions("dev", beams, "-")
            assert json.loads(capsys.readouterr().out) == answers
        else:
            assert json.loads((tmp_path / output).read_text()) == answers
    task.write_predictions("dev", beams, str(tmp_path / "one.tsv"))
    lines = (tmp_path / "one.tsv").read_text().splitlines()
    assert lines == ["id\tprediction", "q0\tlighthouse", "q1\t1952", "q2\t", "q3\tAnn"]


def test_files_without_answers_are_predicted_but_not_scored(tmp_path, monkeypatch):
    unlabelled = (STORY[0], [("What?", None), ("Who?", None)])
    path = written(tmp_path / "test.json", unlabelled)
    task = task_of(dev=path, predict="-")
    shape = len(task.read("dev")[1]), 5, 5
    beams = {"start_log_probs": np.zeros(shape[:2]), "starts": np.zeros(shape[:2], int),
             "end_log_probs": np.zeros(shape), "ends": np.zeros(shape, int)}  # fmt: skip
    with pytest.raises(
        ValueError, match=r"2 questions have no answers to score against, .*qas\[0\]"
    ):
        task.score("dev", beams)
    assert set(task.decode("dev", beams).answers()) == {"q0", "q1"}
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(content(unlabelled)).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert len(task.features("predict")) == len(task.features("dev"))
    with pytest.raises(ValueError, match=r"config\.data\.test is empty; set --config\.data\.test="):
        task.features("test")


def test_what_was_left_out_is_listed_where_the_config_says(tmp_path):
    path = written(tmp_path / "x.json", SHORT, ("Bob ran.", [("Who?", [("Bob", 1)])]))
    task = task_of(train=path, dropped_to=str(tmp_path / "lists"))
    assert "1 x answer not at its offset, left out of training: q1" in task.introduction
    listed = json.loads((tmp_path / "lists/train_dropped.json").read_text())
    assert listed == {"answer not at its offset, left out of training": ["q1"]}
    assert task_of(dev=path).describe_heldout() == {"dev_questions": 2, "dev_windows": 2}


def test_a_file_that_is_not_there_is_named_with_its_key():
    with pytest.raises(FileNotFoundError, match=r"^config\.data\.train: no file gone\.json$"):
        task_of(train="gone.json").features("train")


def test_a_file_in_which_nothing_can_be_trained_on_is_refused(tmp_path):
    path = written(tmp_path / "x.json", ("Bob ran.", [("Who?", [("Bob", 1)])]))
    wanted = r"the split 'train' has no examples \(.*x\.json: 1 questions, 0 windows; 1 x answer"
    with pytest.raises(ValueError, match=wanted):
        task_of(train=path).features("train")


RECIPES = [
    *((squad, f"{v},recipe={r},behaviour={b}") for v in squad.VERSIONS for r in squad.RECIPES
      for b in squad.BEHAVIOURS),
    *((module, f"behaviour={b}") for module in (cmrc2018, drcd) for b in squad.BEHAVIOURS),
]  # fmt: skip


@pytest.mark.parametrize(("module", "arg"), RECIPES, ids=lambda value: str(value)[:40])
def test_recipes_are_whole_and_of_their_behaviour(module, arg):
    settings = parse(module.get_config(arg).to_dict())
    behaviour = REFERENCE if "reference" in arg else FIXED
    assert {key: getattr(settings.data, key) for key in behaviour} == behaviour
    assert settings.data.answerability == ("2.0" in arg)


def test_the_published_numbers_are_in_the_recipes():
    default = squad.get_config()
    assert (default.train.steps, default.train.batch_size) == (8000, 48)
    assert squad.get_config("1.1,recipe=paper").optimizer.weight_decay == 0.01
    base = squad.get_config("2.0,recipe=base")
    assert (base.train.steps, base.train.batch_size, base.optimizer.learning_rate) == (
        12000,
        24,
        2e-5,
    )
    for module, steps, warmup, length in ((cmrc2018, 2400, 240, 40), (drcd, 3600, 360, 30)):
        config = module.get_config()
        assert (config.train.steps, config.optimizer.warmup_steps) == (steps, warmup)
        assert (config.data.max_answer_length, config.data.max_seq_length) == (length, 512)
        assert (config.train.batch_size, config.optimizer.learning_rate) == (16, 3e-5)
        assert config.optimizer.epsilon == 1e-6
    for module, arg in ((squad, "3.0"), (squad, "2.0,recipe=x"), (squad, "1.1,y=z"), (drcd, "x")):
        with pytest.raises(ValueError, match=f"got '{arg}', wanted "):
            module.get_config(arg)


def test_train_evaluate_and_predict_end_to_end(tmp_path):
    """A tiny network learns eight questions by heart; what was learned comes back from disk."""
    texts = [f"Sample {k} holds item {k * 7 % 10} of box {k}." for k in range(8)]
    paragraphs = [(text, [("Which item?", [(text[15:21], 15)])]) for k, text in enumerate(texts)]
    (tmp_path / "net.json").write_text(sizes(ENGLISH.vocab_size).to_json())
    config = squad.get_config("1.1")
    config.model.network = str(tmp_path / "net.json")
    config.model.dtype = "float32"
    for key in ("dropout", "activation_dropout", "attention_dropout"):
        config.model[key] = 0.0
    config.data.spiece_model = str(ENGLISH.model_path)
    config.data.train = config.data.dev = written(tmp_path / "train.json", *paragraphs)
    config.data.max_seq_length, config.data.max_query_length = 48, 8
    config.data.boundaries = "characters"
    config.train.steps, config.train.batch_size, config.train.eval_every = 40, 8, 40
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 2e-2, 5
    config.optimizer.layer_decay = 1.0
    config.checkpoint.save_every = 40
    config.report.tensorboard = False
    workdir = str(tmp_path / "run")
    metrics = run.train(config.to_dict(), workdir)
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert set(json.loads(stored["data"]["learned_boundaries"])) == {"leads", "trails"}
    (best,) = run.evaluate(stored, workdir, checkpoint="best")
    assert best["dev_f1"] >= metrics["dev_f1"]
    assert best["dev_f1"] > 60
    output = tmp_path / "out"
    count = run.predict(stored, workdir, split="dev", output=str(output), checkpoint="best")
    assert count == 8
    answers = json.loads((output / "predictions.json").read_text())
    right = sum(answers[f"q{k}"] == text[15:21] for k, text in enumerate(texts))
    assert math.isclose(100 * right / 8, best["dev_exact"])


def test_only_splits_are_read_as_files():
    data = DataConfig(train="train.json", spiece_model="spiece.model")
    assert data.file("train") == "train.json"
    with pytest.raises(ValueError, match=r"config\.data\.dev is empty; set --config"):
        data.file("dev")
    for name in ("spiece_model", "nothing"):
        wanted = f"there is no split '{name}', wanted one of train, dev, test, predict"
        with pytest.raises(ValueError, match=wanted):
            data.file(name)
