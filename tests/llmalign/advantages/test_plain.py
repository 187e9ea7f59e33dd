import torch

from llmalign.advantages import plain


def test_the_reward_and_its_penalties_go_to_every_token() -> None:
    mask_BT = torch.tensor([[True, True], [True, False]])
    penalty_BT = torch.tensor([[-0.25, -0.5], [0.5, 9.0]])
    adv_BT = plain(torch.tensor([1.0, -2.0]), torch.tensor([0, 0]), mask_BT, penalty_BT)
    assert adv_BT.tolist() == [[0.25, 0.25], [-1.5, 0.0]]
