"""Left-to-right decoding with a key/value cache. B rows, L tokens, P given tokens at most, C state channels, V vocabulary."""

from collections.abc import Callable

import torch
from torch import Tensor

from elf.draws import Draws
from elf.nn.cache import KeyValueCache
from elf.nn.token_model import TokenModel
from elf.sampling.condition import Condition


def draw_tokens(logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """int64 [B] drawn by inversion of the cumulative distribution at ``uniform_B`` (float64 in [0, 1)).

    top_p: from the smallest set of most probable tokens that together have this probability (Holtzman et al. 2020). All in
    float64: the tail of a float32 cumulative sum rounds rare tokens away and lowers the entropy of the text."""
    probability_BV = torch.softmax(logits_BV.double() / temperature, dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = probability_BV.sort(dim=-1, descending=True, stable=True)
        outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p
        probability_BV = probability_BV.masked_fill(outside_BV.gather(1, order_BV.argsort(-1)), 0.0)
    cumulative_BV = probability_BV.cumsum(-1)
    # right: a token of probability 0 is never drawn, at 0 neither.
    chosen_B1 = torch.searchsorted(cumulative_BV, uniform_B[:, None] * cumulative_BV[:, -1:], right=True)
    return chosen_B1[:, 0].clamp_max(logits_BV.shape[1] - 1)


def fine_uniform(draws: Draws, length: int) -> Tensor:
    """float64 [B, L] in [0, 1) with 48 random bits; float32 draws have 24, which a token of probability below 1e-7 falls between."""
    high_BL, low_BL = (draws.uniform(stream, length).double() for stream in ("autoregressive", "autoregressive low"))
    return high_BL + low_BL * 2.0**-24


@torch.no_grad()
def continue_rows(
    network: TokenModel, draws: Draws, *, length: int, temperature: float, top_p: float, condition: Condition | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int]:
    """(ids [B, L] with the given tokens at the head, network evaluations).

    A row's token depends on the given tokens and draws of that row alone, wherever the others start: each row has its own position.
    While no row is given more than L - target_length tokens, shapes do not depend on the other rows either."""
    rows, device = len(draws.rows), draws.device
    if condition is None:
        ids_BL = torch.zeros(rows, length, dtype=torch.int64, device=device)
        given_B, given, target = torch.zeros(rows, dtype=torch.int64, device=device), 0, length
    else:
        assert condition.ids_BL.shape == (rows, length), "one condition per row, of the row's length"
        ids_BL, given_B, target = condition.ids_BL.clone(), condition.length_B, condition.target_length
        given = max(int(given_B.max()), length - target)
    row_B = torch.arange(rows, device=device)
    uniform_BT = fine_uniform(draws, target)
    cache = KeyValueCache(network.config.depth, length)
    for i in range(target):
        place_B = given_B + i  # of the token to draw; past the end of a row that is full already
        last_B = place_B.clamp_max(length - 1)
        cache.slots.keys = min(given + i + 1, length)
        if i == 0:
            states_BNC = network.extend(ids_BL[:, :given], cache)
            state_BC = states_BNC[row_B, given_B]
        else:
            cache.slots.first = i if condition is None else last_B
            state_BC = network.extend(ids_BL[row_B, last_B - 1][:, None], cache)[:, 0]
        drawn_B = draw_tokens(network.unembed(state_BC).float(), uniform_BT[:, i], temperature=temperature, top_p=top_p)
        ids_BL[row_B, last_B] = torch.where(place_B < length, drawn_B, ids_BL[row_B, last_B])
        if progress:
            progress(i + 1, target)
    return ids_BL, target
