import pytest
import torch

from llmalign.losses import sequence_weights, sft


def test_one_token_by_hand() -> None:
    # loss = 1.5, gradient -1
    logp = torch.tensor([[-1.5]], requires_grad=True)
    loss = sft(logp, torch.tensor([[True]]))
    loss.sum().backward()
    assert (loss.item(), logp.grad.item()) == (1.5, -1.0)


def test_masked_entries_are_never_read() -> None:
    logp = torch.tensor([[-1.0, float("nan")], [float("-inf"), -2.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, True]])
    loss = sft(logp, mask)
    loss.sum().backward()
    assert loss.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert logp.grad.tolist() == [[-1.0, 0.0], [0.0, -1.0]]


def test_token_mean_is_the_cross_entropy_of_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64)
    target = torch.randint(7, (2, 4), generator=generator)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    logp = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
    weight_B = sequence_weights(mask.sum(1), kind="token_mean", max_tokens=4, num_sequences=None)
    labels = torch.where(mask, target, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close((weight_B[:, None] * sft(logp, mask)).sum(), expected)


@pytest.mark.parametrize(
    "kind", ["token_mean", "sequence_mean", "sequence_sum", "constant", "sum_norm"]
)
def test_microbatches_add_up_to_the_batch(kind: str) -> None:
    logp = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, 0.0], [-6.0, 0.0, 0.0]]).double()
    mask = torch.arange(3)[None, :] < torch.tensor([3, 2, 1])[:, None]
    weight_B = sequence_weights(mask.sum(1), kind=kind, max_tokens=3, num_sequences=None)
    whole = (weight_B[:, None] * sft(logp, mask)).sum()
    first = (weight_B[:1, None] * sft(logp[:1], mask[:1])).sum()
    rest = (weight_B[1:, None] * sft(logp[1:, :2], mask[1:, :2])).sum()
    torch.testing.assert_close(first + rest, whole, rtol=1e-14, atol=0)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"mask_BT has shape \(3, 2\), expected \(2, 3\)"):
        sft(torch.zeros(2, 3), torch.ones(3, 2, dtype=torch.bool))
