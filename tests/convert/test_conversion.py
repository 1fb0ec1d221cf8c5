import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.convert import examples
from xlnet_jax.convert import conversion, model_files, rules, tensorflow, writing
from xlnet_jax.convert.conversion import Conversion
from xlnet_jax.convert.pretrained import load_pretrained
from xlnet_jax.data.storage import TEMPORARY


def convert(source, output, formats, **options):
    """Runs a conversion "tf hf" and returns the lines it said."""
    lines = []
    source_format, target_format = formats.split()
    job = Conversion(str(source), str(output), source_format, target_format, **options)
    conversion.convert(job, lines.append)
    return lines


@pytest.fixture
def original(tmp_path):
    """A checkpoint of the original with a language-model head, as released."""
    model = examples.pretrained()
    writing.write(tmp_path / "tf", model, "tf")
    return tmp_path / "tf"


def test_tf_to_jax_to_tf_is_the_same_to_the_last_bit(tmp_path, original):
    convert(original / "xlnet_model.ckpt", tmp_path / "jax", "tf jax")
    convert(tmp_path / "jax", tmp_path / "again", "jax tf")
    names = ["xlnet_model.ckpt.index", "xlnet_model.ckpt.data-00000-of-00001", "checkpoint"]
    for name in [*names, "xlnet_config.json", "spiece.model", "normalization.json"]:
        assert (tmp_path / "again" / name).read_bytes() == (original / name).read_bytes(), name


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_jax_to_hf_to_jax_is_the_same_to_the_last_bit(tmp_path, tied):
    model = examples.pretrained(examples.config(untie_r=not tied), "span_qa")
    writing.write(tmp_path / "jax", model, "jax")
    convert(tmp_path / "jax", tmp_path / "hf", "jax hf")
    convert(tmp_path / "hf", tmp_path / "again", "hf jax")
    again = load_pretrained(tmp_path / "again")
    examples.assert_equal(again.params, model.params)
    assert (again.config, again.head) == (model.config, model.head)
    assert again.tokenizer.sha256 == model.tokenizer.sha256


def test_tf_to_hf_to_tf_through_ours(tmp_path):
    writing.write(tmp_path / "tf", examples.pretrained(head="classification:mnli"), "tf")
    convert(tmp_path / "tf", tmp_path / "hf", "tf hf")
    message = r"named after its task: give --head=classification:TASK"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "hf", tmp_path / "again", "hf tf")
    convert(tmp_path / "hf", tmp_path / "again", "hf tf", head="classification:mnli")
    got, wanted = (
        tensorflow.read_checkpoint(str(tmp_path / name / "xlnet_model.ckpt"))
        for name in ("again", "tf")
    )
    examples.assert_equal(got, wanted)


def test_what_is_said(tmp_path, original):
    lines = convert(original, tmp_path / "jax", "tf jax", verify=True)
    assert lines[0] == "1 variables of the optimizer are no part of the model"
    assert lines[1].startswith("verify: 20 arrays compared, largest difference 0 of the largest")
    assert lines[2].startswith("verify: the outputs were compared with nothing; give --recorded")
    assert lines[3].startswith(f"{original}/xlnet_model.ckpt -> {tmp_path}/jax: 20 parameters, ")


def recorded(tmp_path, name, **changes):
    """Case `name` of the goldens as a file for --recorded."""
    folder = examples.GOLDENS / "finetune_forward" / "tied_gelu_wide"
    arrays = {}
    for file in ("inputs", "outputs"):
        with np.load(folder / f"{file}.npz") as archive:
            for key in archive:
                case, _, array = key.partition("/")
                if case == name:
                    arrays[array] = archive[key]
    np.savez(tmp_path / "recorded.npz", **{**arrays, **changes})
    return folder / "xlnet_model.ckpt", str(tmp_path / "recorded.npz")


REGRESSION = rules.Allowed(unused=("model/regression_demo/*",))


@pytest.mark.parametrize("case", ["cls_leftpad_all_layers", "qa_rightpad_all_layers", "mems"])
def test_against_what_the_original_computed(tmp_path, case):
    source, path = recorded(tmp_path, case)
    options = {"head": "classification:demo", "allowed": REGRESSION}
    lines = convert(source, tmp_path / "o", "tf jax", verify=True, recorded=path, **options)
    assert any(line.startswith("verify: sequence_output: ") for line in lines)
    assert any(line.startswith("verify: new_mems: ") for line in lines)


def test_other_numbers_than_the_original_s(tmp_path):
    source, path = recorded(tmp_path, "cls_leftpad_all_layers")
    with np.load(path) as archive:
        changed = archive["sequence_output"] + np.float32(0.01)
    source, path = recorded(tmp_path, "cls_leftpad_all_layers", sequence_output=changed)
    options = {"head": "classification:demo", "allowed": REGRESSION}
    with pytest.raises(FloatingPointError, match=r"sequence_output differs by .*--tolerance=1e-05"):
        convert(source, tmp_path / "o", "tf jax", verify=True, recorded=path, **options)
    assert not (tmp_path / "o").exists()
    loose = {**options, "tolerance": 0.1}
    convert(source, tmp_path / "o", "tf jax", verify=True, recorded=path, **loose)


def test_recordings_that_are_not_understood(tmp_path, original):
    def run(path):
        convert(original, tmp_path / "o", "tf jax", verify=True, recorded=str(path))

    with pytest.raises(FileNotFoundError, match=r"--recorded=.*none\.npz: no such file"):
        run(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", input_ids=np.zeros((2, 1)), perm_mask=np.zeros(1))
    with pytest.raises(ValueError, match=r"holds perm_mask, which are not known here"):
        run(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", input_ids=np.zeros((2, 1), np.int32))
    with pytest.raises(ValueError, match=r"lacks sequence_output"):
        run(tmp_path / "b.npz")


def save_steps(folder, *steps):
    """Checkpoints of a run of the original, with slots; step s has seed s."""
    for step in steps:
        model = examples.pretrained(seed=step)
        flat = examples.flatten(model.params)
        variables = examples.variables_of(flat, model.config)
        slots = {f"{name}/Adam": array for name, array in variables.items()}
        counters = {"global_step": np.array(step, np.int64), "beta1_power": np.float32(0.5)}
        tensorflow.write_checkpoint(
            folder / f"model.ckpt-{step}", {**variables, **slots, **counters}
        )
    (folder / "checkpoint").unlink()
    model_files.write_model_files(folder, model.config, model.tokenizer)


def mean_of(*seeds):
    models = [examples.flatten(examples.pretrained(seed=seed).params) for seed in seeds]
    return {
        name: np.mean([model[name].astype(np.float64) for model in models], axis=0).astype("f4")
        for name in models[0]
    }


@pytest.mark.parametrize("target", ["tf", "jax", "hf"])
def test_the_mean_of_the_newest_checkpoints(tmp_path, target):
    (tmp_path / "run").mkdir()
    save_steps(tmp_path / "run", 9, 10, 100)
    lines = convert(tmp_path / "run", tmp_path / "mean", f"tf {target}", average=2)
    loaded = load_pretrained(tmp_path / "mean")
    wanted = mean_of(10, 100)
    examples.assert_equal(examples.flatten(loaded.params), wanted)
    assert any("mean of 2" in line for line in lines)
    if target == "tf":
        names = tensorflow.variable_names(str(tmp_path / "mean" / "xlnet_model.ckpt"))
        assert not [name for name in names if "Adam" in name or name == "beta1_power"]


def test_stripping(tmp_path):
    (tmp_path / "run").mkdir()
    save_steps(tmp_path / "run", 7)
    lines = convert(tmp_path / "run", tmp_path / "small", "tf tf", verify=True)
    assert "34 variables written, 35 of the optimizer left out" in lines[-1]
    got = tensorflow.read_checkpoint(str(tmp_path / "small" / "xlnet_model.ckpt"))
    assert got["global_step"] == 0
    examples.assert_equal(
        load_pretrained(tmp_path / "small").params, load_pretrained(tmp_path / "run").params
    )
    assert (tmp_path / "small" / "spiece.model").exists()
    convert(tmp_path / "run", tmp_path / "copy", "tf tf", with_optimizer=True)
    copy = tensorflow.read_checkpoint(str(tmp_path / "copy" / "model.ckpt-7"))
    examples.assert_equal(copy, tensorflow.read_checkpoint(str(tmp_path / "run" / "model.ckpt-7")))


def test_checkpoints_that_cannot_be_averaged(tmp_path, original):
    with pytest.raises(ValueError, match=r"--average=3, but .* holds 1 checkpoints of the kind"):
        convert(original, tmp_path / "o", "tf tf", average=3)
    with pytest.raises(ValueError, match=r"--average must be 1 or more, got -1"):
        convert(original, tmp_path / "o", "tf tf", average=-1)
    tensorflow.write_checkpoint(original / "xlnet_model.ckpt-5", {"a": np.zeros(2)})
    (original / "checkpoint").unlink()
    with pytest.raises(ValueError, match=r"ckpt-5 differ in their variables: a \(2,\), model/lm"):
        convert(original, tmp_path / "o", "tf tf", average=2)


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_output_that_exists(tmp_path, original):
    output = tmp_path / "jax"
    output.mkdir()
    convert(original, output, "tf jax")  # an empty folder is no loss
    before = snapshot(output)
    with pytest.raises(FileExistsError, match=r"exists already: give another OUT, or --overwrite"):
        convert(original, output, "tf jax")
    assert snapshot(output) == before
    (output / "more").write_text("x")
    convert(original, output, "tf jax", overwrite=True)
    assert not (output / "more").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"file is a file; OUT is a folder"):
        convert(original, tmp_path / "file", "tf jax", overwrite=True)
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


@pytest.mark.parametrize("target", ["tf", "jax", "hf"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, original, monkeypatch, target):
    output = tmp_path / "out"
    convert(original, output, f"tf {'jax' if target == 'tf' else target}")
    before = snapshot(output)

    def fail(*args, **options):
        raise OSError("no space left on device")

    convert(original, tmp_path / "in", "tf jax")
    monkeypatch.setattr(model_files, "write_model_files", fail)
    with pytest.raises(OSError, match="no space left"):
        convert(tmp_path / "in", output, f"jax {target}", overwrite=True)
    assert snapshot(output) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "tf"]


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        ("hf jax", {}, r"--from=hf, but .*/tf holds a checkpoint of the kind tf; give --from=tf"),
        ("tf hf", {"with_optimizer": True}, r"--with_optimizer needs tf and jax on both sides"),
        ("tf jax", {"with_optimizer": True, "average": 1}, r"leave out --with_optimizer"),
        ("tf jax", {"with_optimizer": True}, r"has no optimizer slots"),
        ("tf jax", {"as_bin": True}, r"--weights=bin is for --to=hf, got --to=jax"),
        ("tf jax", {"recorded": "x.npz"}, r"add --verify"),
        ("tf jax", {"head": "span_qa"}, r"has these heads: none; --head=span_qa does not say one"),
        ("tf tf", {"recorded": "x", "verify": True}, r"--recorded needs parameters of ours"),
        ("tf jax", {"tolerance": 0.1}, r"--tolerance=0.1 is that of --verify: add --verify"),
        ("tf tf", {"head": "span_qa"}, r"^--head: from tf to tf all variables are taken as they"),
        ("tf tf", {"lower": False}, r"^--lower or --no-lower: from tf to tf"),
        (
            "tf tf",
            {"allowed": rules.Allowed(("a",), ("b",))},
            r"^--allow_missing, --allow_unused: from tf to tf",
        ),
        (
            "jax jax",
            {"allowed": rules.Allowed((), ("b",))},
            r"^--allow_missing, --allow_unused: from jax to jax all parameters are taken as",
        ),
        ("tf tf", {"spiece_model": "nowhere"}, r"nowhere: no such file"),
    ],
)
def test_wrong_wishes(tmp_path, original, formats, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert(original, tmp_path / "out", formats, **options)
    assert not (tmp_path / "out").exists()


def test_sources_that_are_not_there(tmp_path):
    for formats in ("hf jax", "jax tf"):
        with pytest.raises(FileNotFoundError, match=r"nothing: no such folder"):
            convert(tmp_path / "nothing", tmp_path / "out", formats)
    with pytest.raises(FileNotFoundError, match=r"nothing\.index does not exist"):
        convert(tmp_path / "nothing", tmp_path / "out", "tf jax")


def test_a_head_of_which_nothing_is_known(tmp_path):
    writing.write(tmp_path / "jax", examples.pretrained(head="tagging"), "jax")
    path = tmp_path / "jax" / "convert.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "head": None}))
    with pytest.raises(ValueError, match=r"has logits, but nothing says of what; give --head=KIND"):
        convert(tmp_path / "jax", tmp_path / "hf", "jax hf")
    convert(tmp_path / "jax", tmp_path / "hf", "jax hf", head="tagging")
    assert load_pretrained(tmp_path / "hf").head == "tagging"


def test_without_a_head(tmp_path):
    """A head that the other side does not have is left out by a pattern, and that is said."""
    writing.write(tmp_path / "jax", examples.pretrained(head="tagging"), "jax")
    allowed = rules.Allowed(unused=("logits/*",))
    lines = convert(tmp_path / "jax", tmp_path / "tf", "jax tf", allowed=allowed)
    assert lines[0] == "not used, as allowed: logits/bias, logits/kernel"
    assert load_pretrained(tmp_path / "tf").head is None


def test_lower_case_is_kept(tmp_path, original):
    convert(original, tmp_path / "jax", "tf jax", lower=True)
    assert load_pretrained(tmp_path / "jax").tokenizer.normalization.lower
    shutil.rmtree(original)


def test_every_field_is_a_flag():
    from xlnet_jax import cli

    parser = cli.make_parser()
    args = parser.parse_args(["convert", "--from=tf", "--to=jax", "a", "b"])
    names = {field.name for field in dataclasses.fields(Conversion)}
    flags = set(vars(args)) | {"allowed", "as_bin"}
    assert names <= flags
    defaults = {field.name: field.default for field in dataclasses.fields(Conversion)}
    for name in names - {"source", "output", "source_format", "target_format", "allowed", "as_bin"}:
        assert getattr(args, name) == defaults[name], name
