import pytest
import torch

from llmalign.tiny import build_tiny, build_tokenizer


@pytest.mark.parametrize("text", ["3+4×2\n#### 11", "naïve 漢字 🙂", " two  spaces ", ""])
def test_any_text_survives_the_tokenizer(text):
    tokenizer = build_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_seed_alone_decides_the_weights():
    one, two, other = (build_tiny({}, seed=s)[0].state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_the_default_has_about_a_million_parameters():
    model, _ = build_tiny({}, seed=0)
    assert 0.7e6 < sum(p.numel() for p in model.parameters()) < 1.3e6


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match="model.build_options: unknown option 'layers'"):
        build_tiny({"layers": 2}, seed=0)
