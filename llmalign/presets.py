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
    # Group Sequence Policy Optimization, arXiv:2507.18071: the ratio is the sequence's, to the
    # power of 1 / length; bounds 3e-4 and 4e-4, four updates a batch (section 5.1).
    "gspo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "gspo", "clip_low": 3e-4, "clip_high": 4e-4},
        "aggregate": "sequence_mean",
        "schedule": {"updates_per_batch": 4},
    },
    # LUSPO, arXiv:2602.05261: GSPO whose sequences count by their length.
    "luspo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "luspo", "clip_low": 3e-4, "clip_high": 4e-4},
        "aggregate": "sequence_sum",
    },
    # CISPO, MiniMax-M1, arXiv:2506.13585: the ratio is clipped and detached, no token is dropped.
    "cispo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "cispo", "bounds": "ceiling", "clip_high": 5.0},
        "aggregate": "token_mean",
    },
    # SAPO, arXiv:2511.20347: a smooth gate in place of the clip.
    "sapo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "sapo", "tau_pos": 1.0, "tau_neg": 1.05},
        "aggregate": "sequence_mean",
    },
    # GMPO, arXiv:2507.20673: the geometric mean of the clipped token ratios, bounds e^-0.4, e^0.4.
    "gmpo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "gmpo", "clip_low": 0.4, "clip_high": 0.4},
        "aggregate": "sequence_mean",
    },
    # VESPO, arXiv:2602.10693.
    "vespo": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "vespo"},
        "aggregate": "token_mean",
    },
    # The Entropy Mechanism, arXiv:2505.22617: tokens of large covariance leave the gradient, or are
    # held by a KL to the old policy.
    "clip_cov": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "clip_cov"},
        "aggregate": "token_mean",
    },
    "kl_cov": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "kl_cov", "share": 2e-3, "coef": 1.0},
        "aggregate": "token_mean",
    },
    # PACS, arXiv:2509.02522: learns the reward (0 or 1) as a label, from scores within the group.
    "pacs": {
        "advantage": {"kind": "none"},
        "loss": {"kind": "pacs", "beta": 1.0},
        "aggregate": "sequence_mean",
    },
    # VGPO: group-normalised advantage plus a tenth of the reward itself.
    "vgpo": {
        "advantage": {"kind": "anchored", "weight": 0.1},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
    },
    # Pass@k training, arXiv:2508.10751: what a sample adds to the best of k.
    "pass_at_k": {
        "advantage": {"kind": "pass_at_k", "k": 4},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
    },
    # R1-Reward, arXiv:2505.02835: ratios bounded before the clip, advantages beyond three standard
    # deviations left out, KL 1e-3 in the reward.
    "stable_reinforce": {
        "advantage": {"kind": "stable", "bound": 3.0},
        "loss": {"kind": "stable_reinforce"},
        "aggregate": "token_mean",
        "kl": {"coef": 1e-3, "estimator": "k1", "place": "reward"},
    },
    # Dynamic fine-tuning, arXiv:2508.05629: supervised, each token weighed by its own probability.
    "dft": {"loss": {"kind": "dft"}, "aggregate": "token_mean"},
    "sft": {"loss": {"kind": "sft"}, "aggregate": "token_mean"},
    # Direct Preference Optimization, arXiv:2305.18290, eq. 7; label smoothing: cDPO.
    "dpo": {"loss": {"kind": "dpo", "beta": 0.1}, "aggregate": "sequence_mean"},
    # A general theoretical paradigm, arXiv:2310.12036, eq. 17, on length-averaged log-ratios.
    "ipo": {"loss": {"kind": "ipo", "beta": 0.1}, "aggregate": "sequence_mean"},
}
