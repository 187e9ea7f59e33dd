"""Named algorithms: each is a bundle of choices that a recipe may override one by one.

A preset says only what makes the algorithm; whatever it leaves out has the recipe's own default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """An algorithm: what it is and where from, and its choices as a recipe would write them."""

    about: str
    choices: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    "grpo": Preset(
        "DeepSeekMath, arXiv:2402.03300, eq. 3: group-normalised reward, mean over a sequence's "
        "tokens and then over sequences, k3 KL to the start policy in the loss (beta 0.04, "
        "section 4.2).",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
            "kl": {"coef": 0.04, "estimator": "k3", "place": "loss"},
        },
    ),
    "dr_grpo": Preset(
        "Understanding R1-Zero-like training, arXiv:2503.20783: without the two biases of GRPO.",
        {
            "advantage": {"kind": "group", "scale": "none"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "constant",
        },
    ),
    "dapo": Preset(
        "DAPO, arXiv:2503.14476, section 3: clip-higher, dynamic sampling, token-level loss, "
        "soft overlong punishment (last fifth of the length, as 4096 of 20480), no KL. Dual "
        "clip 10 is the authors' released setting.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0},
            "aggregate": "token_mean",
            "sampling": {"dynamic": {"max_batches": 10}},
            "overlong": {"buffer_share": 0.2, "factor": 1.0},
        },
    ),
    "rloo": Preset(
        "Back to Basics, arXiv:2402.14740: leave-one-out baseline, the sequence is one action, "
        "KL in the reward.",
        {
            "advantage": {"kind": "leave_one_out"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_sum",
            "kl": {"coef": 0.05, "estimator": "k1", "place": "reward"},
        },
    ),
    "reinforce++": Preset(
        "REINFORCE++, arXiv:2501.03262: token rewards with KL, returns whitened over the batch.",
        {
            "advantage": {"kind": "batch_whitened"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
            "kl": {"coef": 0.01, "estimator": "k1", "place": "reward"},
        },
    ),
    "gspo": Preset(
        "Group Sequence Policy Optimization, arXiv:2507.18071: the ratio is the sequence's, to "
        "the power of 1 / length; bounds 3e-4 and 4e-4, four updates a batch (section 5.1).",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "gspo", "clip_low": 3e-4, "clip_high": 4e-4},
            "aggregate": "sequence_mean",
            "schedule": {"updates_per_batch": 4},
        },
    ),
    "luspo": Preset(
        "LUSPO, arXiv:2602.05261: GSPO whose sequences count by their length.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "luspo", "clip_low": 3e-4, "clip_high": 4e-4},
            "aggregate": "sequence_sum",
        },
    ),
    "cispo": Preset(
        "CISPO, MiniMax-M1, arXiv:2506.13585: the ratio is clipped and detached, no token is "
        "dropped.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "cispo", "bounds": "ceiling", "clip_high": 5.0},
            "aggregate": "token_mean",
        },
    ),
    "sapo": Preset(
        "SAPO, arXiv:2511.20347: a smooth gate in place of the clip.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "sapo", "tau_pos": 1.0, "tau_neg": 1.05},
            "aggregate": "sequence_mean",
        },
    ),
    "gmpo": Preset(
        "GMPO, arXiv:2507.20673: the geometric mean of the clipped token ratios, bounds e^-0.4, "
        "e^0.4.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "gmpo", "clip_low": 0.4, "clip_high": 0.4},
            "aggregate": "sequence_mean",
        },
    ),
    "vespo": Preset(
        "VESPO, arXiv:2602.10693: the sequence ratio through a soft weight in place of the clip.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "vespo"},
            "aggregate": "token_mean",
        },
    ),
    "clip_cov": Preset(
        "The Entropy Mechanism, arXiv:2505.22617: tokens of large covariance leave the "
        "gradient, drawn at random.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "clip_cov"},
            "aggregate": "token_mean",
        },
    ),
    "kl_cov": Preset(
        "The Entropy Mechanism, arXiv:2505.22617: tokens of large covariance are held by a KL "
        "to the old policy.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "kl_cov", "share": 2e-3, "coef": 1.0},
            "aggregate": "token_mean",
        },
    ),
    "pacs": Preset(
        "PACS, arXiv:2509.02522: learns the reward (0 or 1) as a label, from scores within the "
        "group.",
        {
            "advantage": {"kind": "none"},
            "loss": {"kind": "pacs", "beta": 1.0},
            "aggregate": "sequence_mean",
        },
    ),
    "vgpo": Preset(
        "VGPO: group-normalised advantage plus a tenth of the reward itself.",
        {
            "advantage": {"kind": "anchored", "weight": 0.1},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
        },
    ),
    "pass_at_k": Preset(
        "Pass@k training, arXiv:2508.10751: what a sample adds to the best of k.",
        {
            "advantage": {"kind": "pass_at_k", "k": 4},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
        },
    ),
    "stable_reinforce": Preset(
        "R1-Reward, arXiv:2505.02835: ratios bounded before the clip, advantages beyond three "
        "standard deviations left out, KL 1e-3 in the reward.",
        {
            "advantage": {"kind": "stable", "bound": 3.0},
            "loss": {"kind": "stable_reinforce"},
            "aggregate": "token_mean",
            "kl": {"coef": 1e-3, "estimator": "k1", "place": "reward"},
        },
    ),
    "opo": Preset(
        "OPO, arXiv:2505.23585: exactly on-policy, the length-weighted baseline of least variance.",
        {
            "advantage": {"kind": "opo"},
            "loss": {"kind": "reinforce"},
            "aggregate": "token_mean",
        },
    ),
    "gpg": Preset(
        "GPG, arXiv:2504.02546: the plain policy gradient, rescaled for groups without a signal.",
        {
            "advantage": {"kind": "gpg"},
            "loss": {"kind": "reinforce"},
            "aggregate": "token_mean",
        },
    ),
    "ppo": Preset(
        "PPO with a critic, arXiv:1707.06347; discounts, value clip and KL in the reward as "
        "verl has them.",
        {
            "advantage": {"kind": "gae", "gamma": 1.0, "lam": 1.0},
            "critic": {"kind": "model", "clip": 0.5, "optimizer": {"lr": 1e-5}},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
            "kl": {"coef": 1e-3, "estimator": "k1", "place": "reward"},
            "schedule": {"updates_per_batch": 4},
        },
    ),
    "raft": Preset(
        "RAFT, arXiv:2304.06767: likelihood of the best sample of each group.",
        {
            "advantage": {"kind": "best_of_group"},
            "loss": {"kind": "raft"},
            "aggregate": "token_mean",
        },
    ),
    "superhf": Preset(
        "SuperHF, arXiv:2310.16763: likelihood of the best quarter of a step, KL to the start "
        "policy.",
        {
            "advantage": {"kind": "best_of_batch", "share": 0.25},
            "loss": {"kind": "superhf", "kl_coef": 0.35},
            "aggregate": "token_mean",
        },
    ),
    "t1": Preset(
        "T1, arXiv:2501.11651: many samples, entropy bonus, KL to an anchor that moves with the "
        "policy. The paper's coefficients were not found; rate and period are TR-DPO's "
        "(arXiv:2404.09656).",
        {
            "advantage": {"kind": "leave_one_out"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
            "rollout": {"samples_per_problem": 64},
            "kl": {"coef": 1e-3, "place": "loss", "reference": "ema", "rate": 0.6, "every": 512},
            "entropy": {"bonus": 1e-3},
        },
    ),
    "pods": Preset(
        "PODS, arXiv:2504.13818: of 64 samples the 16 whose rewards spread most are trained on.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
            "rollout": {"samples_per_problem": 64},
            "sampling": {"train_samples": 16, "select": "spread"},
        },
    ),
    "high_entropy": Preset(
        "Beyond the 80/20 rule, arXiv:2506.01939: DAPO on the fifth of the tokens of highest "
        "entropy.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "token_weights": {"kind": "high_entropy", "share": 0.2},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0},
            "aggregate": "token_mean",
            "sampling": {"dynamic": {"max_batches": 10}},
            "overlong": {"buffer_share": 0.2, "factor": 1.0},
        },
    ),
    "spine": Preset(
        "SPINE: only forking tokens learn, and their entropy is held in a band. Weight "
        "reconstructed.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "token_weights": {"kind": "fork", "share": 0.2},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
            "kl": {"coef": 1e-3, "estimator": "k3", "place": "loss"},
            "entropy": {"band": {"coef": 1e-2, "share": 0.2, "low": 0.1, "high": 0.5}},
        },
    ),
    "attention_credit": Preset(
        "Attention illuminates LLM reasoning, arXiv:2510.13554: preplan and anchor tokens weigh "
        "more.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "token_weights": {"kind": "attention_coupled"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
        },
    ),
    "treerl": Preset(
        "TreeRL, arXiv:2506.11902: samples fork at their least likely tokens, leaves credit the "
        "steps.",
        {
            "rollout": {"temperature": 1.2},
            "sampling": {
                "tree": {"kind": "treerl", "trees": 6, "branches": 2, "rounds": 1, "per_point": 2},
                "train_samples": 16,
            },
            "advantage": {"kind": "treerl", "weighting": "sqrt"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
        },
    ),
    "treepo": Preset(
        "TreePO, arXiv:2508.17445: samples grow in segments and fork between them.",
        {
            "sampling": {"tree": {"kind": "treepo", "segment_tokens": 512, "width": 16}},
            "advantage": {"kind": "treepo", "mix": "average"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.28},
            "aggregate": "token_mean",
        },
    ),
    "grpo_process": Preset(
        "GRPO with process supervision, arXiv:2402.03300, section 4.1.3; the reward must score "
        "steps.",
        {
            "advantage": {"kind": "process_sum"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
            "kl": {"coef": 0.04, "estimator": "k3", "place": "loss"},
        },
    ),
    "pure": Preset(
        "PURE, arXiv:2504.15275: a response is worth its worst step; the reward must score steps.",
        {
            "advantage": {"kind": "pure", "temperature": 0.1},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
            "kl": {"coef": 1e-3, "estimator": "k1", "place": "reward"},
        },
    ),
    "brpo": Preset(
        "Writing-Zero, arXiv:2506.00103: samples against one of their group (pairwise: reference).",
        {
            "advantage": {"kind": "brpo", "max_skew": 0.6},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
        },
    ),
    "pairwise": Preset(
        "Think-RM, arXiv:2505.16265: all samples of a group against each other (pairwise: all).",
        {
            "advantage": {"kind": "pairwise_wins"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "sequence_mean",
        },
    ),
    "trajectory_balance": Preset(
        "Trajectory balance (VarGrad form), arXiv:2201.13259: samples in proportion to exp(R / T). "
        "T is ours: at 1 a right answer is worth one nat, and the policy flattens.",
        {
            "advantage": {"kind": "none"},
            "loss": {"kind": "trajectory_balance", "temperature": 0.05},
            "aggregate": "sequence_mean",
        },
    ),
    "amft": Preset(
        "AMFT, arXiv:2508.06944: demonstrations mixed into the steps, their share under control; "
        "needs imitation.data. A secondary source calls the paper withdrawn.",
        {
            "advantage": {"kind": "group", "scale": "std"},
            "loss": {"kind": "clipped", "clip_low": 0.2, "clip_high": 0.2},
            "aggregate": "token_mean",
            "imitation": {"share": 0.8, "adapt": {}},
        },
    ),
    "asft": Preset(
        "Anchored supervised fine-tuning, arXiv:2509.23753: DFT held to the start policy.",
        {"loss": {"kind": "asft", "kl_coef": 0.1}, "aggregate": "token_mean"},
    ),
    "dft": Preset(
        "Dynamic fine-tuning, arXiv:2508.05629: supervised, each token weighed by its own "
        "probability.",
        {"loss": {"kind": "dft"}, "aggregate": "token_mean"},
    ),
    "sft": Preset(
        "Supervised fine-tuning: the likelihood of demonstrations.",
        {"loss": {"kind": "sft"}, "aggregate": "token_mean"},
    ),
    "dpo": Preset(
        "Direct Preference Optimization, arXiv:2305.18290, eq. 7; label smoothing: cDPO.",
        {"loss": {"kind": "dpo", "beta": 0.1}, "aggregate": "sequence_mean"},
    ),
    "ipo": Preset(
        "A general theoretical paradigm, arXiv:2310.12036, eq. 17, on length-averaged log-ratios.",
        {"loss": {"kind": "ipo", "beta": 0.1}, "aggregate": "sequence_mean"},
    ),
}
