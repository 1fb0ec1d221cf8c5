"""Pretraining from token shards.

    xlnet-jax train --config=configs/pretrain.py:SIZE --workdir=DIR \\
        --config.data.train=SHARDS --config.data.heldout=SHARDS/heldout

SIZE is one of the following; `SIZE,behaviour=reference` keeps the original's quirks (spans counted
in pieces, Adam without bias correction when weights decay) instead of our fixes.

    tiny       3 layers of 128, for a look around on a CPU: minutes. Published score: none.
    base       XLNet-Base, 12 layers of 768. The paper publishes no recipe; this is that of the
               large model (v1) with batch 512. Hardware: any TPU slice; on few devices raise
               train.accumulation_steps.
    large      XLNet-Large as in the paper (v2, table 7): batch 8,192, 500,000 steps. The authors
               used 512 TPU v3 chips for 5.5 days. Scores: MNLI 90.8, SQuAD 2.0 F1 90.6, RACE 85.4.
    large_v1   XLNet-Large as first published: batch 2,048, learning rate 1e-5 as printed there.
               512 TPU v3 chips for 2.5 days. Scores: MNLI 89.8, SQuAD 2.0 F1 88.8, RACE 81.75.
    mid_zh     Chinese-XLNet-mid, 24 layers of 768: batch 32, 2 million steps, about three weeks on
               a Cloud TPU v3-8. Final loss 1.3318; CMRC 2018 dev EM/F1 66.8/88.4.
    base_zh    Chinese-XLNet-base, 12 layers of 768: the same for 4 million steps. Final loss
               1.5113; CMRC 2018 dev EM/F1 65.2/86.9.

Scores are those the authors published, after fine-tuning; none is ours.
"""

from ml_collections import ConfigDict

from configs import _shared

BEHAVIOURS = {
    "fixed": {"spans": "words", "bias_correction": "always"},
    "reference": {"spans": "pieces", "bias_correction": "reference"},
}


def get_config(arg: str = "tiny") -> ConfigDict:
    """The config of a size; see the top of this file."""
    name, _, rest = arg.partition(",")
    behaviour = rest.removeprefix("behaviour=") if rest else "fixed"
    if name not in SIZES or behaviour not in BEHAVIOURS:
        raise ValueError(
            f"got {arg!r}, wanted SIZE or SIZE,behaviour=BEHAVIOUR with SIZE one of"
            f" {', '.join(SIZES)} and BEHAVIOUR one of {', '.join(BEHAVIOURS)}"
        )
    config = _common()
    SIZES[name](config)
    if not name.endswith("_zh"):  # text without spaces has no words to take whole
        config.data.spans = BEHAVIOURS[behaviour]["spans"]
    config.optimizer.bias_correction = BEHAVIOURS[behaviour]["bias_correction"]
    return config


def _common() -> ConfigDict:
    """What all sizes share: lengths, spans and rates as the paper and both code bases have them."""
    config = _shared.base_config("pretraining")
    config.model.n_token = 0  # taken from the vocabulary of data.train
    config.model.d_head = 64
    config.model.untie_r = True
    config.model.mem_len = 384

    config.data.train = ""
    config.data.heldout = ""
    config.data.cache = ""
    config.data.seq_len = 512
    config.data.reuse_len = 256
    config.data.num_predict = 85
    config.data.perm_size = 256
    config.data.mask_alpha = 6
    config.data.mask_beta = 1
    config.data.max_gram = 5
    config.data.spans = "words"
    config.data.bi_data = True
    config.data.reset_memory = "never"

    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 40_000
    config.optimizer.weight_decay = 0.01

    config.train.steps = 500_000
    config.train.batch_size = 512
    config.train.eval_steps = 50

    config.checkpoint.save_every = 5_000
    config.checkpoint.keep = 3
    config.checkpoint.keep_every = 100_000

    config.report.log_every = 100
    return config


def _network(config: ConfigDict, n_layer: int, d_model: int, ff_activation: str) -> None:
    config.model.n_layer = n_layer
    config.model.d_model = d_model
    config.model.n_head = d_model // config.model.d_head
    config.model.d_inner = 4 * d_model
    config.model.ff_activation = ff_activation


def _tiny(config: ConfigDict) -> None:
    config.model.d_head = 32
    _network(config, 3, 128, "gelu")
    config.model.mem_len = 96
    config.model.dtype = "float32"
    config.data.seq_len = 128
    config.data.reuse_len = 64
    config.data.num_predict = 21
    config.data.perm_size = 64
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.train.steps = 2_000
    config.train.batch_size = 16
    config.checkpoint.save_every = 500
    config.checkpoint.keep_every = 0
    config.report.log_every = 50


def _base(config: ConfigDict) -> None:
    _network(config, 12, 768, "gelu")


def _large(config: ConfigDict) -> None:
    _network(config, 24, 1024, "gelu")
    config.model.activation_dropout = 0.0  # table 7 of the paper, "GeLU dropout"
    config.train.batch_size = 8_192


def _large_v1(config: ConfigDict) -> None:
    _network(config, 24, 1024, "gelu")
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 20_000
    config.train.batch_size = 2_048


def _mid_zh(config: ConfigDict) -> None:
    config.data.spans = "pieces"
    _network(config, 24, 768, "relu")  # the command names none, and the code's default is relu
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 20_000
    config.optimizer.min_lr_ratio = 0.001  # the original code's default
    config.train.steps = 2_000_000
    config.train.batch_size = 32


def _base_zh(config: ConfigDict) -> None:
    _mid_zh(config)
    _network(config, 12, 768, "relu")
    config.train.steps = 4_000_000


SIZES = {
    "tiny": _tiny,
    "base": _base,
    "large": _large,
    "large_v1": _large_v1,
    "mid_zh": _mid_zh,
    "base_zh": _base_zh,
}
