"""Named algorithms: each is a bundle of choices that a recipe may override one by one.

A preset says only what makes the algorithm; whatever it leaves out has the recipe's own default.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # DeepSeekMath, arXiv:2402.03300, eq. 3: group-normalised reward, mean over a sequence's tokens
    # and then over sequences, k3 KL to the start policy in the loss (beta 0.04, section 4.2).
    "grpo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
        "kl": {"coef": 0.04, "estimator": "k3", "place": "loss"},
    },
    # Understanding R1-Zero-like training, arXiv:2503.20783: without the two biases of GRPO.
    "dr_grpo": {
        "advantage": {"kind": "group", "scale": "none"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "constant",
    },
    # DAPO, arXiv:2503.14476, section 3: clip-higher, dynamic sampling, token-level loss, soft
    # overlong punishment (last fifth of the length, as 4096 of 20480), no KL. Dual clip 10 is the
    # authors' released setting.
    "dapo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0},
        "aggregate": "token_mean",
        "sampling": {"dynamic": {"max_batches": 10}},
        "overlong": {"buffer_share": 0.2, "factor": 1.0},
    },
    # Back to Basics, arXiv:2402.14740: leave-one-out baseline, the sequence is one action, KL in
    # the reward.
    "rloo": {
        "advantage": {"kind": "leave_one_out"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_sum",
        "kl": {"coef": 0.05, "estimator": "k1", "place": "reward"},
    },
    # REINFORCE++, arXiv:2501.03262: token rewards with KL, returns whitened over the batch.
    "reinforce++": {
        "advantage": {"kind": "batch_whitened"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
        "kl": {"coef": 0.01, "estimator": "k1", "place": "reward"},
    },
    "sft": {"loss": {"kind": "sft"}, "aggregate": "token_mean"},
    # Direct Preference Optimization, arXiv:2305.18290, eq. 7; label smoothing: cDPO.
    "dpo": {"loss": {"kind": "dpo", "beta": 0.1}, "aggregate": "sequence_mean"},
    # A general theoretical paradigm, arXiv:2310.12036, eq. 17, on length-averaged log-ratios.
    "ipo": {"loss": {"kind": "ipo", "beta": 0.1}, "aggregate": "sequence_mean"},
}
