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
    # OPO, arXiv:2505.23585: exactly on-policy, the length-weighted baseline of least variance.
    "opo": {
        "advantage": {"kind": "opo"},
        "loss": {"kind": "reinforce"},
        "aggregate": "token_mean",
    },
    # GPG, arXiv:2504.02546: the plain policy gradient, rescaled for groups without a signal.
    "gpg": {
        "advantage": {"kind": "gpg"},
        "loss": {"kind": "reinforce"},
        "aggregate": "token_mean",
    },
    # PPO with a critic, arXiv:1707.06347; discounts, value clip and KL in the reward as verl has them.
    "ppo": {
        "advantage": {"kind": "gae", "gamma": 1.0, "lam": 1.0},
        "critic": {"kind": "model", "clip": 0.5, "optimizer": {"lr": 1e-5}},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
        "kl": {"coef": 1e-3, "estimator": "k1", "place": "reward"},
        "schedule": {"updates_per_batch": 4},
    },
    # RAFT, arXiv:2304.06767: likelihood of the best sample of each group.
    "raft": {
        "advantage": {"kind": "best_of_group"},
        "loss": {"kind": "raft"},
        "aggregate": "token_mean",
    },
    # SuperHF, arXiv:2310.16763: likelihood of the best quarter of a step, KL to the start policy.
    "superhf": {
        "advantage": {"kind": "best_of_batch", "share": 0.25},
        "loss": {"kind": "superhf", "kl_coef": 0.35},
        "aggregate": "token_mean",
    },
    # T1, arXiv:2501.11651: many samples, entropy bonus, KL to an anchor that moves with the policy.
    # The paper's coefficients were not found; rate and period are TR-DPO's (arXiv:2404.09656).
    "t1": {
        "advantage": {"kind": "leave_one_out"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
        "rollout": {"samples_per_problem": 64},
        "kl": {"coef": 1e-3, "place": "loss", "reference": "ema", "rate": 0.6, "every": 512},
        "entropy": {"bonus": 1e-3},
    },
    # PODS, arXiv:2504.13818: of 64 samples the 16 whose rewards spread most are trained on.
    "pods": {
        "advantage": {"kind": "group", "scale": "std"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
        "rollout": {"samples_per_problem": 64},
        "sampling": {"train_samples": 16, "select": "spread"},
    },
    # Beyond the 80/20 rule, arXiv:2506.01939: DAPO on the fifth of the tokens of highest entropy.
    "high_entropy": {
        "advantage": {"kind": "group", "scale": "std"},
        "token_weights": {"kind": "high_entropy", "share": 0.2},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0},
        "aggregate": "token_mean",
        "sampling": {"dynamic": {"max_batches": 10}},
        "overlong": {"buffer_share": 0.2, "factor": 1.0},
    },
    # SPINE: only forking tokens learn, and their entropy is held in a band. Weight reconstructed.
    "spine": {
        "advantage": {"kind": "group", "scale": "std"},
        "token_weights": {"kind": "fork", "share": 0.2},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
        "kl": {"coef": 1e-3, "estimator": "k3", "place": "loss"},
        "entropy": {"band": {"coef": 1e-2, "share": 0.2, "low": 0.1, "high": 0.5}},
    },
    # Attention illuminates LLM reasoning, arXiv:2510.13554: preplan and anchor tokens weigh more.
    "attention_credit": {
        "advantage": {"kind": "group", "scale": "std"},
        "token_weights": {"kind": "attention_coupled"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
    },
    # TreeRL, arXiv:2506.11902: samples fork at their least likely tokens, leaves credit the steps.
    "treerl": {
        "rollout": {"temperature": 1.2},
        "sampling": {
            "tree": {"kind": "treerl", "trees": 6, "branches": 2, "rounds": 1, "per_point": 2},
            "train_samples": 16,
        },
        "advantage": {"kind": "treerl", "weighting": "sqrt"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
    },
    # TreePO, arXiv:2508.17445: samples grow in segments and fork between them.
    "treepo": {
        "sampling": {"tree": {"kind": "treepo", "segment_tokens": 512, "width": 16}},
        "advantage": {"kind": "treepo", "mix": "average"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.28},
        "aggregate": "token_mean",
    },
    # GRPO with process supervision, arXiv:2402.03300, section 4.1.3; the reward must score steps.
    "grpo_process": {
        "advantage": {"kind": "process_sum"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
        "kl": {"coef": 0.04, "estimator": "k3", "place": "loss"},
    },
    # PURE, arXiv:2504.15275: a response is worth its worst step; the reward must score steps.
    "pure": {
        "advantage": {"kind": "pure", "temperature": 0.1},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "token_mean",
        "kl": {"coef": 1e-3, "estimator": "k1", "place": "reward"},
    },
    # Writing-Zero, arXiv:2506.00103: samples against one of their group (pairwise: reference).
    "brpo": {
        "advantage": {"kind": "brpo", "max_skew": 0.6},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
    },
    # Think-RM, arXiv:2505.16265: all samples of a group against each other (pairwise: all).
    "pairwise": {
        "advantage": {"kind": "pairwise_wins"},
        "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
        "aggregate": "sequence_mean",
    },
    # Trajectory balance (VarGrad form), arXiv:2201.13259: samples in proportion to exp(R / T).
    "trajectory_balance": {
        "advantage": {"kind": "none"},
        "loss": {"kind": "trajectory_balance", "temperature": 1.0},
        "aggregate": "sequence_mean",
    },
    # Anchored supervised fine-tuning, arXiv:2509.23753: DFT held to the start policy.
    "asft": {"loss": {"kind": "asft", "kl_coef": 0.1}, "aggregate": "token_mean"},
    # Dynamic fine-tuning, arXiv:2508.05629: supervised, each token weighed by its own probability.
    "dft": {"loss": {"kind": "dft"}, "aggregate": "token_mean"},
    "sft": {"loss": {"kind": "sft"}, "aggregate": "token_mean"},
    # Direct Preference Optimization, arXiv:2305.18290, eq. 7; label smoothing: cDPO.
    "dpo": {"loss": {"kind": "dpo", "beta": 0.1}, "aggregate": "sequence_mean"},
    # A general theoretical paradigm, arXiv:2310.12036, eq. 17, on length-averaged log-ratios.
    "ipo": {"loss": {"kind": "ipo", "beta": 0.1}, "aggregate": "sequence_mean"},
}
