"""`python -m tests.parity` on goldens with other cases and names, and on damaged ones."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow as tf

from tests.parity import __main__ as program
from tests.parity import classifier_features, data_utils_runs, finetune_heads, head_cases
from tests.parity import model_cases as mc
from xlnet_jax.convert import tensorflow
from xlnet_jax.data import original_records
from xlnet_jax.model.config import XLNetConfig

GOLDENS = Path(__file__).parent / "goldens"
SCHEDULES = "pretrain_train/lr_schedules"


def copy(tmp_path, *parts):
    """Some folders and files of the goldens."""
    for part in parts:
        if (GOLDENS / part).is_dir():
            shutil.copytree(GOLDENS / part, tmp_path / part)
        else:
            (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(GOLDENS / part, tmp_path / part)
    return tmp_path


def read(path):
    return json.loads(path.read_text())


def keep(folder, *names, **changes):
    """Leaves these cases alone in meta.json."""
    meta = read(folder / "meta.json")
    if names:
        meta["cases"] = {name: meta["cases"][name] for name in names}
    (folder / "meta.json").write_text(json.dumps(meta | changes))


def arrays(path):
    with np.load(path) as archive:
        return dict(archive)


def lines(root, only=""):
    """Name -> (status, text) of every case whose name contains `only`."""
    return {case.name: program.run(case) for case in program.all_cases(root) if only in case.name}


def statuses(root, only=""):
    return {name: status for name, (status, _) in lines(root, only).items()}


OPTIMIZER = {
    "learning_rate": 1e-3, "warmup_steps": 1, "train_steps": 5, "decay_method": "poly",
    "min_lr_ratio": 0.0, "weight_decay": 0.0, "adam_epsilon": 1e-6, "clip": 1.0, "use_tpu": False,
}  # fmt: skip


def one_step_chain(source, folder, features, options, weights, gradients, loss, norm):
    """A chain of a single step, whose learning rate is 0, from the numbers of a single pass."""
    folder.mkdir(parents=True)
    for path in source.glob("xlnet_*"):
        shutil.copy(path, folder)
    clipped = {name: value / max(norm, 1.0) for name, value in gradients.items()}
    final = dict(weights)
    final |= {f"{name}/Adam": np.float32(0.1 * value) for name, value in clipped.items()}
    final |= {f"{name}/Adam_1": np.float32(1e-3 * value**2) for name, value in clipped.items()}
    tensorflow.write_checkpoint(folder / "final_model.ckpt", final)
    np.savez(folder / "inputs.npz", **{key: value[None] for key, value in features.items()})
    np.savez(folder / "outputs.npz", loss=[loss], grad_norm=[norm], learning_rate=[0.0])
    meta = {"options": options | OPTIMIZER, "steps": 1, "inputs": {key: {} for key in features}}
    (folder / "meta.json").write_text(json.dumps(meta))


def test_a_pretraining_chain_without_memory(tmp_path):
    source, name = GOLDENS / "pretrain_forward/untied_gelu", "map_random_mask"
    features = mc.arrays_of(arrays(source / "inputs.npz"), name)
    wanted = mc.arrays_of(arrays(source / "outputs.npz"), name)
    weights = tensorflow.read_checkpoint(str(source / "xlnet_model.ckpt"))
    weights = {key: value for key, value in weights.items() if key != "global_step"}
    gradients = {key: wanted[f"grad:{key}"] for key in weights}
    options = read(source / "meta.json")["cases"][name]["options"]
    one_step_chain(
        source, tmp_path / "pretrain_train/none", features, options, weights, gradients,
        wanted["total_loss"], wanted["grad_norm_as_original"],
    )  # fmt: skip
    assert statuses(tmp_path, "pretrain_train/none")["pretrain_train/none"] == "ok"


@pytest.mark.parametrize(
    "classes", [{"n_class": None}, {"n_class": 1, "is_regression": True}], ids=str
)
def test_a_regression_chain(tmp_path, classes):
    source, name = GOLDENS / "finetune_forward/tied_gelu_wide", "regress_mean_proj"
    features = mc.arrays_of(arrays(source / "inputs.npz"), name)
    options = read(source / "meta.json")["cases"][name]["options"]
    config = XLNetConfig.from_json((source / "xlnet_config.json").read_text())
    head = finetune_heads.Head("regression", "demo")
    model, inputs = (
        finetune_heads.make_model(config, options),
        finetune_heads.model_inputs(features),
    )
    params = head_cases.load(source, model, head, **inputs)
    got, gradients = finetune_heads.run_model(
        model, None, True, params, inputs, features["label_ids"]
    )
    weights, grads = (
        head_cases.variables_from(jax.tree.map(np.asarray, tree), config, head)
        for tree in (params, gradients)
    )
    wanted = mc.arrays_of(arrays(source / "outputs.npz"), name)
    options = {key: value for key, value in options.items() if key != "head_scope"} | classes
    one_step_chain(
        source, tmp_path / "pretrain_train/r", features, options, weights, grads,
        wanted["total_loss"], float(got["grad_norm_as_original"]),
    )  # fmt: skip
    found = program.run(next(c for c in program.all_cases(tmp_path) if c.name.endswith("train/r")))
    assert found[0] == "ok", found


def test_what_is_there_of_norms_is_compared(tmp_path):
    part, name = "pretrain_forward/tied_relu_wide", "map_mems_bi"
    folder = copy(tmp_path, part) / part
    keep(folder, name)
    full = {k: v for k, v in arrays(folder / "outputs.npz").items() if k.startswith(f"{name}/")}
    keys = [f"{name}/grad_norm_{which}" for which in ("as_original", "dense")]
    for changed in keys:
        np.savez(folder / "outputs.npz", **full | {changed: full[changed] * np.float32(1.001)})
        status, text = lines(tmp_path, f"wide/{name}")[f"{part}/{name}"]
        assert status == "FAIL"
        assert f"worst {changed.split('/')[1]}" in text
    np.savez(folder / "outputs.npz", **{k: v for k, v in full.items() if k not in keys})
    assert statuses(tmp_path, f"wide/{name}") == {f"{part}/{name}": "ok"}


def test_gradients_of_nothing_but_noise_are_measured_by_the_largest():
    wanted = {
        "grad:a": np.array([1.0, -20.0]),
        "grad:b": np.array([1e-5, 0]),
        "grad:c": np.zeros(2),
    }
    got = {name.removeprefix("grad:"): value for name, value in wanted.items()}

    def failing(**changes):
        errors = mc.gradient_errors(got | {k: np.array(v) for k, v in changes.items()}, wanted)
        return [name for name, (error, tolerance) in errors.items() if error > tolerance]

    assert failing(b=[-1e-5, 3e-6], c=[1e-6, -1e-5]) == []
    assert failing(b=[1e-3, 0], c=[0, 3e-4]) == ["grad:b", "grad:c"]
    wanted["grad:b"] = got["b"] = np.array([1e-3, 0])  # small, and no noise
    assert failing(b=[1.001e-3, 0]) == ["grad:b"]


def test_an_answer_that_one_of_the_alignments_loses(tmp_path):
    folder = copy(tmp_path, "squad_features/original", "tokenization") / "squad_features/original"
    data = read(folder / "train.json")
    name = "squad_features/original/train_en_cased/exact_offsets"
    assert lines(tmp_path, "exact_offsets")[name][1].endswith("2 questions left out")
    kept = {one["qas_id"] for one in read(folder / "features_train_en_cased.json")["examples"]}
    paragraph, question = next(
        (paragraph, question)
        for article in data["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
        if question["id"] in kept and not question["is_impossible"]
    )
    question["answers"] = [{"text": " ", "answer_start": len(paragraph["context"]) + 1}]
    paragraph["context"] += "  \nmore"
    (folder / "train.json").write_text(json.dumps(data))
    status, text = lines(tmp_path, "exact_offsets")[name]
    assert status == "ok", text
    assert text.endswith("3 questions left out")


def unseeded(folder, **changes):
    """A run of our own as the original would have made it, Python's numbers not seeded."""
    command = (
        f"data_utils.py --input_glob=corpus/*.txt --sp_path=spiece.model --save_dir={folder.name}"
    )
    flags = {
        "bsz_per_host": 4, "num_core_per_host": 1, "seq_len": 36, "reuse_len": 18, **changes
    }  # fmt: skip
    command += "".join(f" --{key}={value}" for key, value in flags.items())
    flags = data_utils_runs.flags_of(command)
    found = data_utils_runs._replay(folder.parent, flags, 5)
    size = flags["bsz_per_host"]
    batches = [
        {key: value[k : k + size] for key, value in found.items()}
        for k in range(0, len(found["input"]), size)
    ]
    settings = data_utils_runs.record_settings(flags)
    corpus = {key: flags[key] for key in ("num_core_per_host", "use_eod", "sp_path", "input_glob")}
    info = original_records.write_run(
        folder, settings, batches, corpus_info={"vocab_size": 32000, **corpus}
    )
    path = Path(info.folder) / info.name
    written = read(path)
    written["filenames"] = [name[name.index(folder.name) :] for name in written["filenames"]]
    path.write_text(json.dumps(written))
    name = settings.file_name("train-0-0", "tfrecords")
    np.savez(folder / "records.npz", **{f"{name}/{key}": value for key, value in found.items()})
    runs = {folder.name: {"python_random_seed": None, "commands": [command]}}
    (folder.parent / "meta.json").write_text(json.dumps({"runs": runs}))


@pytest.mark.parametrize("num_predict", [None, 7])
def test_masks_of_an_unseeded_run(tmp_path, num_predict):
    folder = copy(tmp_path, "data_utils/corpus", "data_utils/spiece.model") / "data_utils"
    unseeded(folder / "own", num_predict=num_predict)
    names = ["data_utils/runs/own/train-0-0", "data_utils/runs/own/train-0-0/corpus_info"]
    assert statuses(tmp_path) == dict.fromkeys(names, "ok")
    records = arrays(folder / "own/records.npz")
    masks = next(value for key, value in records.items() if key.endswith("is_masked"))
    masks[:] = np.roll(masks, 1, axis=1)
    np.savez(folder / "own/records.npz", **records)
    assert "structure: " in lines(tmp_path)[names[0]][1]


def test_flags_in_every_spelling_of_absl():
    first, *others = (
        "data_utils.py --uncased=False --use_eod=True --seq_len=64 --num_predict=None"
        " --sp_path=a/b.m",
        "data_utils.py --nouncased --use_eod --seq_len 64 --num_predict None -sp_path a/b.m",
        "python3 -u ./data_utils.py --uncased=false --use_eod=t \\\n --seq_len=64"
        " --num_predict=None --sp_path='a/b.m'",
    )
    wanted = data_utils_runs.flags_of(first)
    assert (wanted["uncased"], wanted["num_predict"], wanted["seq_len"]) == (False, None, 64)
    for other in others:
        assert data_utils_runs.flags_of(other) == wanted
    for wrong in ("--no_such_flag=1", "--seq_len=x", "--seq_len", "stray"):
        with pytest.raises(ValueError, match=r"in 'data_utils\.py"):
            data_utils_runs.flags_of(f"data_utils.py {wrong}")


def test_other_names_of_checkpoints_schedules_and_runs(tmp_path):
    copy(tmp_path, SCHEDULES, "race/tied_relu_wide", "data_utils/runs/two_tasks_two_passes")
    (tmp_path / SCHEDULES).rename(tmp_path / "pretrain_train/rates")
    folder = tmp_path / "race/tied_relu_wide"
    for path in folder.glob("xlnet_model.ckpt.*"):
        path.rename(path.with_name(path.name.replace("xlnet_model", "init")))
    keep(folder, "last_proj", checkpoint="init.ckpt (before the first step)")
    meta = read(GOLDENS / "data_utils/meta.json")
    runs = {"renamed": meta["runs"]["two_tasks_two_passes"]}
    kept = {"runs": runs, "record_info_merging": meta["record_info_merging"]}
    (tmp_path / "data_utils/meta.json").write_text(json.dumps(kept))
    found = statuses(tmp_path, "_")
    assert found["race/tied_relu_wide/last_proj"] == "ok"
    assert found["data_utils/record_info_merging/0"] == "ok"
    assert found["pretrain_train/rates/poly_w5_t20_r0"] == "ok"


def test_a_chain_has_the_checkpoints_that_it_names(tmp_path):
    part = "pretrain_train/adam_poly"
    folder = copy(tmp_path, part) / part
    for which in ("xlnet", "mid", "final"):
        for path in folder.glob(f"{which}_model.ckpt.*"):
            path.rename(path.with_name(path.name.replace("model", "state")))
    names = {
        "checkpoint": "xlnet_state.ckpt", "mid_checkpoint": "mid_state.ckpt: half-time",
        "final_checkpoint": "final_state.ckpt",
    }  # fmt: skip
    keep(folder, **names)
    assert statuses(tmp_path, "pretrain_train/adam_poly/resumed") == {f"{part}/resumed": "ok"}


def write_records(path, records):
    def feature(values):
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            named = {key: feature(values) for key, values in record.items()}
            example = tf.train.Example(features=tf.train.Features(feature=named))
            file.write(example.SerializeToString())


def test_other_names_and_orders_of_task_records(tmp_path):
    folder = copy(tmp_path, "classifier_features", "tokenization") / "classifier_features"
    contents = read(folder / "original.json")
    records = contents["mnli_train_2_passes.tf_record"]
    for name in ("mnli_matched_train_2_passes", "mnli-0_train"):
        write_records(folder / f"{name}.tf_record", records)
        contents[f"{name}.tf_record"] = records
    split = classifier_features.make_split(
        iter(classifier_features._read(tmp_path, "imdb", "train")[::-1]),
        classifier_features.tokenizer(tmp_path, "en", False),
        labels=("neg", "pos"),
        max_length=24,
        oddities=classifier_features.Oddities(),
    )
    imdb = [
        {
            "input_ids": one["input_ids"],
            "input_mask": [float(value) for value in one["input_mask"]],
            "segment_ids": one["segment_ids"],
            "label_ids": [one["label_id"]],
            "is_real_example": [1],
        }
        for one in classifier_features._as_original(split, 24)
    ]
    write_records(folder / "imdb_train.tf_record", imdb)
    contents["imdb_train.tf_record"] = imdb
    (folder / "original.json").write_text(json.dumps(contents))
    races = read(folder / "race.json")
    name = "race_dev_2_passes.tf_record"
    races[name] = races.pop("race_dev.tf_record") * 2
    write_records(folder / name, races[name])
    (folder / "race_dev.tf_record").unlink()
    (folder / "race.json").write_text(json.dumps(races))
    found = statuses(tmp_path, "tf_record")
    assert found.pop("classifier_features/original/mnli-0_train.tf_record") == "FAIL"  # unknown
    assert set(found.values()) == {"ok"}
    assert {
        "classifier_features/original/imdb_train.tf_record",
        f"classifier_features/race/{name}",
    } <= {*found}


def test_what_cannot_be_listed_fails_by_itself(tmp_path):
    copy(tmp_path, SCHEDULES, "race/tied_relu_wide", "data_utils/helpers.json")
    (tmp_path / "race/tied_relu_wide/meta.json").unlink()
    index = tmp_path / "race/tied_relu_wide/xlnet_model.ckpt.index"
    index.write_bytes(index.read_bytes()[:50])
    (tmp_path / "squad_features/more").mkdir(parents=True)
    (tmp_path / "tokenization").mkdir()
    found = lines(tmp_path)
    failed = {name: text for name, (status, text) in found.items() if status == "FAIL"}
    assert sorted(failed) == [
        "checkpoints/race/tied_relu_wide/xlnet_model.ckpt",
        "data_utils",
        "race/tied_relu_wide",
        "squad_features/more",
        "tokenization",
    ]
    assert not any("\n" in text for text in failed.values())
    assert len(found) == len(failed) + len(read(tmp_path / SCHEDULES / "meta.json")["cases"])


def test_a_known_kind_that_cannot_be_run_fails(tmp_path):
    copy(tmp_path, SCHEDULES, "race/tied_relu_wide", "squad_features/fork", "classifier_features")
    (tmp_path / "race/tied_relu_wide/xlnet_config.json").unlink()
    keep(tmp_path / "race/tied_relu_wide", "last_proj")
    (tmp_path / "classifier_features/fork.json").unlink()
    (tmp_path / "data_utils").mkdir()
    runs = {"own": {"python_random_seed": 1, "commands": ["data_utils.py --new_flag=1"]}}
    (tmp_path / "data_utils/meta.json").write_text(json.dumps({"runs": runs}))
    found = statuses(tmp_path)
    for name in (
        "race/tied_relu_wide/last_proj",
        "squad_features/fork/train_zh_cased",
        "classifier_features/fork",
        "data_utils/runs/own",
    ):
        assert found[name] == "FAIL", name


def test_arrays_of_no_listed_case_are_listed(tmp_path):
    copy(tmp_path, SCHEDULES, "race/tied_relu_wide", "data_utils/local_perm.npz")
    keep(tmp_path / "race/tied_relu_wide", "last_proj")
    keep(tmp_path / SCHEDULES, "poly_w5_t20_r0")
    (tmp_path / "data_utils/meta.json").write_text("{}")
    found = statuses(tmp_path)
    assert found["race/tied_relu_wide/last_proj"] == "ok"
    for name in ("race/tied_relu_wide/attn_proj", f"{SCHEDULES}/cos_w7_t30_r0"):
        assert found[name] == "not run"
    assert found["data_utils/local_perm/case_00"] == "not run"
