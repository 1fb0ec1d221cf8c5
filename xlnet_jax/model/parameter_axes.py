"""Which axes each parameter has: one letter each, by the parameter's path.

Letters are those of the legend in `transformer.py`; "-" stands for an axis without a letter there
(of length 2, or a second D). What is cut along which letter is nobody's business here.
"""

from __future__ import annotations

import re

# (pattern that must match the whole path, letters); the first that matches counts.
_TABLE: tuple[tuple[str, str], ...] = (
    (r"xlnet/word_embedding", "VD"),
    (r"xlnet/mask_embedding", "D"),
    (r"xlnet/layers/attention/[qkvro]", "YDNH"),
    (r"xlnet/layers/attention/r_[wrs]_bias", "YNH"),
    (r"xlnet/layers/attention/seg_embed", "Y-NH"),
    (r"xlnet/r_[wrs]_bias", "NH"),
    (r"xlnet/layers/feed_forward/kernel_1", "YDF"),
    (r"xlnet/layers/feed_forward/bias_1", "YF"),
    (r"xlnet/layers/feed_forward/kernel_2", "YFD"),
    (r"xlnet/layers/feed_forward/bias_2", "YD"),
    (r"xlnet/layers/(attention|feed_forward)_norm/(scale|bias)", "YD"),
    (r"lm_bias", "V"),
    (r"summary/projection/kernel", "D-"),
    (r"summary/projection/bias", "D"),
    (r"summary/attention/[qkvo]", "DNH"),
    (r"summary/attention/bias", "D"),
    (r"summary/attention_norm/(scale|bias)", "D"),
    (r"logits/kernel", "DC"),
    (r"logits/bias", "C"),
    (r"(start_logits|end_logits/dense_1|answer_class/dense_1)/kernel", "DC"),
    (r"(start_logits|end_logits/dense_1)/bias", "C"),
    (r"(end_logits|answer_class)/dense_0/kernel", "-D"),
    (r"(end_logits|answer_class)/dense_0/bias", "D"),
    (r"end_logits/norm/(scale|bias)", "D"),
)


def axes_of(path: str, rank: int) -> str:
    """The letters of the parameter at `path` ("xlnet/layers/attention/q"), one for each axis.

    Raises ValueError if the table lacks it, or has it with another number of axes.
    """
    for pattern, letters in _TABLE:
        if re.fullmatch(pattern, path):
            if len(letters) != rank:
                raise ValueError(f"parameter {path} has {rank} axes, the table says {letters!r}")
            return letters
    raise ValueError(f"parameter {path} is not in the table of model/parameter_axes.py; add it")
