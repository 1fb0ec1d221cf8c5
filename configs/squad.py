"""SQuAD 2.0 and 1.1, fine-tuned from a released or converted checkpoint.

    xlnet-jax train --config=configs/squad.py:VERSION --workdir=DIR --config.init_from=CHECKPOINT \\
        --config.data.train=train-v2.0.json --config.data.dev=dev-v2.0.json
    xlnet-jax evaluate --workdir=DIR --checkpoint=best
    xlnet-jax predict --workdir=DIR --split=dev --output=FOLDER

VERSION is 2.0 or 1.1, followed by any of these:

    ,recipe=script     the authors' script for XLNet-Large (the default): batch 48, rate 3e-5, 8,000
                       steps, 1,000 of warmup, length 512, no weight decay.
    ,recipe=paper      the same with the weight decay of 0.01 of the paper's table 8.
    ,recipe=base       the authors' script for XLNet-Base: batch 24, rate 2e-5, 12,000 steps.
    ,behaviour=reference  answers aligned and picked out exactly as the original does.

Hardware: the authors used a TPU v3-8 (16 GiB a core), about 2 hours for the large model. On less,
raise train.accumulation_steps.
Published, dev EM/F1, XLNet-Large: 2.0 86.1/88.8 (released code), 87.9/90.6 (paper); 1.1 89.0 EM
(released code), 89.7/95.1 (paper). XLNet-Base: 2.0 EM 80.2. None is ours.

As the original does, the factor 0.75 a layer scales gradients, which Adam nearly undoes: these
scores were reached that way. `--config.optimizer.layer_decay_on=learning_rate` scales the rates.
"""

from ml_collections import ConfigDict

from configs import _finetuning
from xlnet_jax.tasks.qa.config import FIXED, REFERENCE

RECIPES = ("script", "paper", "base")
VERSIONS = dict.fromkeys(("2.0", "1.1"))


def get_config(arg: str = "2.0") -> ConfigDict:
    """The config of a version, a recipe and a behaviour; see the top of this file."""
    version, options = _finetuning.parse_variant(
        arg, VERSIONS, {"recipe": RECIPES, "behaviour": tuple(BEHAVIOURS)}
    )
    config = span_qa_config(BEHAVIOURS[options["behaviour"]])
    config.data.answerability = version == "2.0"
    config.checkpoint.best_metric = "dev_best_f1" if version == "2.0" else "dev_f1"
    if options["recipe"] == "paper":
        config.optimizer.weight_decay = 0.01
    if options["recipe"] == "base":
        config.optimizer.learning_rate = 2e-5
        config.train.batch_size = 24
        config.train.steps = 12_000
    return config


def span_qa_config(behaviour: dict[str, str]) -> ConfigDict:
    """What all span question answering shares: the original script's defaults."""
    config = _finetuning.base_config("span_qa")
    data = config.data
    data.predict = ""
    data.answerability = True
    data.scoring = "squad"
    data.max_seq_length = 512
    data.pad_to_multiple = 64
    data.doc_stride = 128
    data.max_query_length = 64
    data.max_answer_length = 64
    data.start_n_top = 5
    data.end_n_top = 5
    data.n_best = 5
    data.null_threshold = float("inf")
    data.learned_boundaries = ""
    data.dropped_to = ""
    data.num_threads = 0
    for key, value in behaviour.items():
        data[key] = value

    config.optimizer.layer_decay = 0.75
    config.optimizer.layer_decay_on = "gradient"
    if behaviour == BEHAVIOURS["reference"]:
        config.optimizer.bias_correction = "reference"

    _finetuning.set_schedule(config, rate=3e-5, batch_size=48, steps=8_000, warmup_steps=1_000)
    _finetuning.set_interval(config, 1_000)
    config.train.eval_batch_size = 32
    return config


BEHAVIOURS = {"fixed": FIXED, "reference": REFERENCE}
