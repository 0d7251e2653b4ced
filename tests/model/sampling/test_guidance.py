"""Guidance: its algebra, what its passes are shown, its interval, and how many evaluations it costs (elf.md A.5, A.6)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.processes import PROCESSES, Autoregressive, EmbeddedFlow, TokenDenoising
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig
from elf.sampling.guidance import classifier_free, within

VOCAB, CHANNELS, LENGTH = 23, 6, 10
FLOW = EmbeddedFlow()


@dataclass
class Recorder:
    """A denoiser that notes what it is shown and answers with a fixed map of it."""

    calls: list[tuple[Tensor, float, Tensor, float]] = field(default_factory=list)

    def __call__(self, z: Tensor, t: float, half: Tensor, w: float) -> Tensor:
        self.calls.append((z, t, half, w))
        return 0.5 * z + 0.25 * half + w * t


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    sizes = NetworkConfig(hidden=32, depth=2, heads=2, bottleneck=8, prefix_tokens=2)
    net = FLOW.build_network(sizes, vocab_size=VOCAB, channels=CHANNELS, length=LENGTH).eval()
    nn.init.normal_(net.x_head.linear.weight, std=0.3)
    nn.init.normal_(net.self_cond_proj.weight, std=0.5)
    return net


def given(lengths: list[int], *, target: int = 5) -> Condition:
    generator = torch.Generator().manual_seed(1)
    length_B = torch.tensor(lengths)
    given_BL = torch.arange(LENGTH) < length_B[:, None]
    ids_BL = torch.randint(0, VOCAB, (len(lengths), LENGTH), generator=generator).masked_fill(~given_BL, 0)
    state_BLC = torch.randn(len(lengths), LENGTH, CHANNELS, generator=generator).masked_fill(~given_BL[..., None], 0.0)
    return Condition(ids_BL=ids_BL, length_B=length_B, state_BLC=state_BLC, target_length=target)


def sampled(net: nn.Module, config: SampleConfig, condition: Condition | None = None, rows: int = 3, eos_id: int | None = None) -> object:
    draws = Draws(seed=7, step=0, rows=np.arange(rows), total=rows)
    return FLOW.sample(net, draws, length=LENGTH, channels=CHANNELS, config=config, condition=condition, eos_id=eos_id)


GIVEN_BL = torch.tensor([[True, True, False, False], [True, False, False, False]])


@pytest.mark.parametrize("rule", ["code", "paper", "joint"])
def test_what_the_pass_without_condition_is_shown(rule: str) -> None:
    plain = Recorder()
    z, half = torch.randn(2, 2, 4, 3).unbind(0)
    found = classifier_free(plain, GIVEN_BL, scale=2.0, rule=rule)(z, 0.3, half, 3.0)
    (z_c, _, half_c, w_c), (z_u, _, half_u, w_u) = plain.calls
    assert torch.equal(z_c, z) and torch.equal(half_c, half) and w_c == 3.0
    assert bool((z_u[GIVEN_BL] == 0).all()) and torch.equal(z_u[~GIVEN_BL], z[~GIVEN_BL])
    assert bool((half_u[GIVEN_BL] == 0).all())
    assert torch.equal(half_u[~GIVEN_BL], half[~GIVEN_BL] if rule == "code" else torch.zeros_like(half[~GIVEN_BL]))
    assert w_u == (1.0 if rule == "joint" else 3.0)
    x_c, x_u = Recorder()(z_c, 0.3, half_c, w_c), Recorder()(z_u, 0.3, half_u, w_u)
    torch.testing.assert_close(found, x_u + 2 * (x_c - x_u))


def test_guidance_of_a_denoiser_that_ignores_the_condition_changes_nothing() -> None:
    def blind(z: Tensor, t: float, half: Tensor, w: float) -> Tensor:
        return torch.full_like(z, t)

    z = torch.randn(2, 4, 3)
    assert torch.equal(classifier_free(blind, GIVEN_BL, scale=3.0, rule="code")(z, 0.3, z, 1.0), blind(z, 0.3, z, 1.0))


def test_the_interval_bounds_both_guidances() -> None:
    plain = Recorder()
    guided = within(classifier_free(plain, GIVEN_BL, scale=2.0, rule="code"), plain, 0.2, 0.6)
    z = torch.randn(2, 4, 3)
    for t, calls, w in ((0.1, 1, 1.0), (0.2, 2, 3.0), (0.6, 2, 3.0), (0.7, 1, 1.0)):
        plain.calls.clear()
        guided(z, t, torch.zeros_like(z), 3.0)
        assert len(plain.calls) == calls and {call[3] for call in plain.calls} == {w}


@pytest.mark.parametrize(
    ("settings", "conditional", "nfe"),
    [
        ({"sampler": "ode"}, False, 9),
        ({"sampler": "sde"}, True, 9),
        ({"sampler": "sde-matched"}, False, 9),
        ({"sampler": "ancestral"}, False, 9),
        ({"sampler": "dpmpp-2m"}, False, 9),
        ({"sampler": "heun"}, False, 2 * 8 - 1 + 1),  # the last step is Euler's
        ({"sampler": "ode", "cfg": 2.0}, True, 2 * 8 + 1),
        ({"sampler": "heun", "cfg": 2.0}, True, 2 * (2 * 8 - 1) + 1),
        # Evaluations at 0, 1/8, ..., 7/8; those at 2/8, 3/8 and 4/8 are guided.
        ({"sampler": "ode", "cfg": 2.0, "grid": "uniform", "guidance_from": 0.25, "guidance_to": 0.5}, True, 8 + 3 + 1),
    ],
)
def test_evaluations_are_counted(settings: dict[str, object], conditional: bool, nfe: int) -> None:
    net, calls = network(), []
    net.trunk.register_forward_hook(lambda m, a, out: calls.append(len(out)))
    made = sampled(net, SampleConfig(steps=8, **settings), given([3, 0, 4]) if conditional else None)
    assert made.nfe == len(calls) == nfe


def test_scale_one_is_off_and_other_scales_and_rules_change_the_samples() -> None:
    net, condition = network(), given([3, 2, 4])
    made = {
        (c, rule): sampled(net, SampleConfig(sampler="ode", steps=4, cfg=c, cfg_rule=rule), condition)
        for c, rule in ((1.0, "code"), (3.0, "code"), (3.0, "paper"), (3.0, "joint"))
    }
    assert made[1.0, "code"].nfe == 5
    # Without a source in any row there is nothing to leave out.
    nothing = given([0, 0, 0])
    guided, plain = (sampled(net, SampleConfig(sampler="ode", steps=4, cfg=c), nothing) for c in (3.0, 1.0))
    assert torch.equal(guided.ids_BL, plain.ids_BL)
    different = {tuple(samples.ids_BL.flatten().tolist()) for samples in made.values()}
    assert len(different) == 4  # one for scale 1, one for each rule at scale 3


@pytest.mark.parametrize(("until", "told"), [(1.0, [1.0, 3.0, 3.0, 3.0, 3.0]), (0.5, [1.0, 3.0, 3.0, 1.0, 1.0])])
def test_the_decoding_pass_lies_at_the_end_of_the_interval(until: float, told: list[float]) -> None:
    net, shown = network(), []
    net.register_forward_pre_hook(lambda m, a: shown.append(float(a[3][0])))
    config = SampleConfig(sampler="ode", grid="uniform", steps=4, guidance=3.0, guidance_from=0.25, guidance_to=until)
    sampled(net, config)
    assert shown == told


@pytest.mark.parametrize("sampler", ["ode", "sde", "sde-matched", "heun", "dpmpp-2m", "ancestral"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_given_states_stay_clean_wherever_the_network_sees_them(sampler: str, cfg: float) -> None:
    net, condition = network(), given([3, 0, 4])
    shown: list[tuple[Tensor, Tensor, bool]] = []
    net.register_forward_pre_hook(lambda m, a: shown.append((a[0], a[1], bool(a[4][0]))))
    sampled(net, SampleConfig(sampler=sampler, steps=3, cfg=cfg), condition)
    given_BL, state_BLC = condition.given_BL, condition.state_BLC
    without = 0
    for z, half, decodes in shown[:-1]:
        assert not decodes
        if bool((z[given_BL] == 0).all()):
            without += 1
            assert bool((half[given_BL] == 0).all())
        else:
            assert torch.equal(z[given_BL], state_BLC[given_BL]) and torch.equal(half[given_BL], state_BLC[given_BL])
    assert without == (len(shown) // 2 if cfg != 1 else 0)
    z, half, decodes = shown[-1]
    assert decodes and torch.equal(z[given_BL], state_BLC[given_BL]) and not bool(half.any())


@torch.no_grad()
def test_conditional_sampling_equals_the_published_loop() -> None:
    """ODE with both guidances written straight from elf.md C.1 and A.6: velocities and estimates guided, then pinned, each by itself."""
    net, condition, c, w, steps = network(), given([3, 0, 4]), 2.0, 1.5, 5
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    config = SampleConfig(sampler="ode", grid="uniform", steps=steps, cfg=c, guidance=w)
    made = sampled(net, config, condition)
    decoded = seen[-1]

    draws, given_BL1, x = Draws(seed=7, step=0, rows=np.arange(3), total=3), condition.given_BL[..., None], condition.state_BLC
    z = torch.where(given_BL1, x, 2.0 * draws.normal("start", LENGTH, CHANNELS))
    prev = torch.where(given_BL1, x, 0.0)
    ones_B = torch.ones(3)
    for k in range(steps):
        t, divisor = k / steps, max(1 - k / steps, FLOW.t_eps)
        x_c = net(z, prev, ones_B * t, ones_B * w, 0 * ones_B)[0]
        z_u = torch.where(given_BL1, 0.0, z)
        x_u = net(z_u, torch.where(given_BL1, 0.0, prev), ones_B * t, ones_B * w, 0 * ones_B)[0]
        v_c, v_u = (x_c - z) / divisor, (x_u - z_u) / divisor
        prev = torch.where(given_BL1, x, x_u + c * (x_c - x_u))
        z = z + torch.where(given_BL1, 0.0, v_u + c * (v_c - v_u)) / steps
    torch.testing.assert_close(decoded, z, rtol=1e-5, atol=1e-5)
    ids_BL = net(z, torch.zeros_like(z), ones_B, ones_B * w, ones_B, want_tokens=True)[1].argmax(-1)
    for row, length in enumerate([3, 0, 4]):
        assert made.ids_BL[row].tolist() == ids_BL[row, length : length + 5].tolist()


def test_the_generated_part_moves_to_the_head_and_ends_at_eos() -> None:
    condition = given([3, 0, 9], target=5)
    ids_BL = torch.arange(30).view(3, LENGTH)
    assert condition.generated(ids_BL, -1).tolist() == [[3, 4, 5, 6, 7], [10, 11, 12, 13, 14], [29, -1, -1, -1, -1]]
    net = network()
    free = sampled(net, SampleConfig(steps=3), condition, eos_id=None).ids_BL
    eos = int(free[0, 2])
    cut = sampled(net, SampleConfig(steps=3), condition, eos_id=eos).ids_BL
    assert free.shape == cut.shape == (3, 5)
    for row, masked in zip(free.tolist(), cut.tolist(), strict=True):
        end = row.index(eos) if eos in row else 5
        assert masked == row[:end] + [0] * (5 - end)
    # An eos among the given tokens ends nothing.
    asked = replace(condition, ids_BL=condition.ids_BL.masked_fill(condition.given_BL, eos))
    assert torch.equal(sampled(net, SampleConfig(steps=3), asked, eos_id=eos).ids_BL, cut)


@pytest.mark.parametrize("sampler", ["sde", "heun", "dpmpp-2m", "ancestral"])
def test_a_row_does_not_depend_on_the_rows_beside_it(sampler: str) -> None:
    """At one batch size, bit for bit: row 2 among others of another seed index and another condition."""
    net, config = network(), SampleConfig(sampler=sampler, steps=4, cfg=2.0, grid="logit-normal-quantile")
    states: list[Tensor] = []
    net.register_forward_pre_hook(lambda m, a: states.append(a[0][2].clone()))
    one, other = given([3, 0, 4]), given([1, 5, 4])
    other.state_BLC[2], other.ids_BL[2] = one.state_BLC[2], one.ids_BL[2]
    made = []
    for condition, rows in ((one, [0, 1, 2]), (other, [8, 9, 2])):
        draws = Draws(seed=7, step=0, rows=np.array(rows), total=10)
        made.append(FLOW.sample(net, draws, length=LENGTH, channels=CHANNELS, config=config, condition=condition).ids_BL[2])
    half = len(states) // 2
    assert all(torch.equal(a, b) for a, b in zip(states[:half], states[half:], strict=True))
    assert torch.equal(made[0], made[1])


REFUSED: list[tuple[Callable[[], None], str]] = [
    (lambda: SampleConfig(sampler="euler"), "'euler'.*one of ode, sde, sde-matched, heun, dpmpp-2m, ancestral"),
    (lambda: SampleConfig(grid="cosine"), "logit-normal, logit-normal-quantile, uniform, warped"),
    (lambda: FLOW.check_sampling(SampleConfig(cfg=2.0), conditional=False), "conditional model"),
    (lambda: FLOW.check_sampling(SampleConfig(temperature=0.5), conditional=False), "no effect with the elf process"),
    (lambda: FLOW.check_sampling(SampleConfig(top_p=0.5), conditional=False), "no effect with the elf process"),
    (lambda: Autoregressive().check_sampling(SampleConfig(sampler="heun"), conditional=False), "temperature, top_p"),
    (lambda: Autoregressive().check_sampling(SampleConfig(grid="uniform"), conditional=False), "temperature, top_p"),
    (lambda: Autoregressive().check_sampling(SampleConfig(cfg=2.0), conditional=True), "sample.cfg"),
    (lambda: TokenDenoising().check_sampling(SampleConfig(), conditional=False), "cannot generate text"),
    (lambda: sampled(network(), SampleConfig(cfg=2.0)), "conditional model"),
    (lambda: sampled(network(), SampleConfig(), replace(given([1, 1, 1]), state_BLC=None)), "codec of the artefact"),
]


@pytest.mark.parametrize(("act", "words"), REFUSED)
def test_sampling_that_a_process_does_not_have_is_refused(act: Callable[[], None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()


@pytest.mark.parametrize("kind", ["elf", "autoregressive"])
def test_default_settings_pass_everywhere(kind: str) -> None:
    PROCESSES[kind]().check_sampling(SampleConfig(), conditional=False)
    PROCESSES[kind]().check_sampling(SampleConfig(), conditional=True)
