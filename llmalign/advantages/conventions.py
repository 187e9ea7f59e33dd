"""The same advantage as other trainers compute it: options by trainer and by name.

    group(..., **convention("verl", "group"))

TRL and verl divide by different things and treat a lone sample differently, so that runs agree in
neither scale nor edge cases unless this is said. Clip bounds are options of losses; TRL and verl
both add and subtract them from 1, except where ``CLIP_MEANING`` says otherwise.
"""

from collections.abc import Mapping
from typing import Any

from llmalign.verifiers.registry import unknown

CONVENTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "trl": {
        "group": {"scale": "std", "eps": 1e-4, "ddof": 1, "lone": "zero"},
        "leave_one_out": {"lone": "zero"},
    },
    "verl": {
        "group": {"scale": "std", "eps": 1e-6, "ddof": 1, "lone": "keep"},
        "leave_one_out": {"lone": "keep"},
        "opo": {"lone": "keep"},
        "gpg": {"lone": "keep"},
        "batch_whitened": {"gamma": 1.0, "eps": 1e-8, "baseline": "none"},
        "gae": {"gamma": 1.0, "lam": 1.0, "whiten": True, "eps": 1e-8},
        "max_minus_second": {"scaled": True, "eps": 1e-6},
    },
}

# Loss kind -> trainer -> what its upper bound of the ratio means.
CLIP_MEANING: Mapping[str, Mapping[str, str]] = {
    "clipped": {"trl": "1 + clip_high", "verl": "1 + clip_high"},
    "cispo": {"trl": "clip_high itself, no lower bound", "verl": "1 + clip_high"},
    "gmpo": {"trl": "exp(clip_high)", "verl": "exp(clip_high)"},
}


def convention(trainer: str, advantage: str) -> dict[str, Any]:
    """Options of ``advantage`` as ``trainer`` computes it.

    Raises: ValueError: we know no such trainer, or not that advantage of it.
    """
    if trainer not in CONVENTIONS:
        raise ValueError(unknown("convention", trainer, CONVENTIONS))
    if advantage not in CONVENTIONS[trainer]:
        raise ValueError(unknown(f"{trainer} advantage", advantage, CONVENTIONS[trainer]))
    return dict(CONVENTIONS[trainer][advantage])
