"""Reference vectors of rewards that read the text of a response, its length, or its references."""

from collections.abc import Callable, Mapping
from typing import Any

from llmalign.rewards.bleu import sentence_bleu, tokens_13a
from llmalign.rewards.graph import cost_aware_f1, new_facts, path_pay, retrieval_attenuation
from llmalign.rewards.length_shape import er_term, harmo_terms, o1_pruner_term
from llmalign.rewards.quote import best_quote_pair, quote_pairs
from llmalign.rewards.reasoning_pattern import PHRASES, pattern_reward
from llmalign.rewards.relevance import (
    closed_relevance,
    length_incentive,
    open_relevance,
    variety,
)
from llmalign.rewards.safety import alpha_align_value, standardised

Case = Mapping[str, Any]


def _bleu(case: Case) -> Any:
    inputs = case["inputs"]
    if "text" in inputs:
        return tokens_13a(inputs["text"])
    references = [tokens_13a(text) for text in inputs.get("references", ["a reference"])]
    found = sentence_bleu(tokens_13a(inputs["prediction"]), references, inputs.get("max_order", 4))
    if not isinstance(case["expected"], Mapping):
        return found.bleu
    return {**vars(found), "precisions": list(found.precisions)}


def _length_term(case: Case) -> Any:
    inputs = case["inputs"]
    if "group_lengths" in inputs:
        return o1_pruner_term(inputs["length"], inputs["group_lengths"])
    return er_term(inputs["length"], inputs["correct_lengths"])


def _harmo(case: Case) -> Any:
    inputs = case["inputs"]
    right = [bool(correct) for correct in inputs["correct"]]
    return harmo_terms(inputs["lengths"], right, inputs["tau"], inputs["P_max"])


def _reasoning_pattern(case: Case) -> Any:
    return pattern_reward(case["inputs"]["text"], PHRASES, enough=20, ngram=20, forbidden="user: ")


def _relevance(case: Case) -> Any:
    inputs = case["inputs"]
    parts = {"LI": length_incentive(len(inputs["words"])), "RP": variety(inputs["words"])}
    return {
        "open_ended": {**parts, "R3": open_relevance(inputs["r_x"], parts["LI"], parts["RP"])},
        "closed": {**parts, "R3": closed_relevance(inputs["r_y"], parts["RP"])},
    }


def _alpha_align(case: Case) -> Any:
    inputs = case["inputs"]
    helpful = standardised(inputs.get("rm", [0.0] * len(inputs["format"])))
    rows = zip(inputs["format"], inputs["refusal"], helpful, strict=True)
    harmful = inputs["harmful"]
    return [alpha_align_value(harmful, bool(f), bool(r), z or 0.0, 1.0, 1.0) for f, r, z in rows]


def _graph_rag(case: Case) -> Any:
    inputs = case["inputs"]
    f1, scale, cost = inputs["F1"], inputs["a"], inputs["b"]
    return {
        "PRA": [retrieval_attenuation(n, inputs["R0"], inputs["k"]) for n in inputs["N"]],
        "CAF": [cost_aware_f1(f1, n, scale, cost) for n in inputs["N"]],
    }


def _kg_path(case: Case) -> Any:
    (named,) = case["inputs"].values()
    found = {}
    for name, (correct, hits, path_words, phi) in named.items():
        outcome, path = 0.1 if correct else -1.0, path_pay(hits, path_words, phi)
        found[name] = {"R_bin": outcome, "R_path": path, "total": outcome + path}
    return found


def _proactive(case: Case) -> Any:
    inputs = case["inputs"]
    return {"reward": new_facts(inputs["masked_facts"], inputs["elicited_by_turn"])}


def _quote_pairs(case: Case) -> Any:
    inputs = case["inputs"]
    gaps = {"min_gap": inputs["delta_quip"], "max_length_gap": inputs["delta_length"]}
    pairs = quote_pairs(inputs["quip"], inputs["len"], **gaps)
    best = best_quote_pair(inputs["quip"], pairs)
    return {"valid_pairs": [list(pair) for pair in pairs], "chosen_pair": list(best or ())}


METHODS: dict[str, Callable[[Case], Any]] = {
    "BLEUBERI BLEU": _bleu,
    "SAR baselines": _length_term,
    "hybrid length penalty (HARMO-like)": _harmo,
    "RPR": _reasoning_pattern,
    "R3 regularised relevance": _relevance,
    "AlphaAlign": _alpha_align,
    "GraphRAG-R1 PRA and CAF": _graph_rag,
    "Knowledge-graph path reward": _kg_path,
    "Proactive information gathering": _proactive,
    "quote_tuning": _quote_pairs,
}
