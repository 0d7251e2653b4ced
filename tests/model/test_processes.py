"""Processes: one contract for all, and ELF's own promises (elf.md A)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from elf.batch import Batch
from elf.draws import Draws
from elf.nn.config import NetworkConfig
from elf.nn.denoiser import Denoiser
from elf.nn.trunk import feed_forward_width
from elf.processes import PROCESSES, Autoregressive, EmbeddedFlow, Process, TokenDenoising
from elf.processes.embedded_flow import FlowDraws
from elf.processes.token_denoising import DenoisingDraws
from elf.sampling.config import SampleConfig
from elf.schedules import log_uniform_shifted, logit_normal, logit_normal_density

SMALL = NetworkConfig(hidden=32, depth=2, heads=2, bottleneck=8, prefix_tokens=2)
VOCAB, CHANNELS, LENGTH = 23, 6, 10


def rows(count: int = 8, *, cond: int = 0, pad: bool = True) -> tuple[Batch, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCAB, (count, LENGTH), generator=generator)
    lengths = torch.full((count,), LENGTH) if not pad else torch.randint(4, LENGTH + 1, (count,), generator=generator)
    batch = Batch.of_ids(ids, lengths, torch.full((count,), cond))
    return batch, torch.randn(count, LENGTH, CHANNELS, generator=generator)


def part(batch: Batch, chosen: slice) -> Batch:
    return Batch(**{name: getattr(batch, name)[chosen] for name in batch.__dataclass_fields__})


def network(process: Process, *, seed: int = 0, **settings: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = process.build_network(replace(SMALL, **settings), vocab_size=VOCAB, channels=CHANNELS, length=LENGTH)
    for p in net.parameters():  # leave zero initialisation, under which mistakes hide
        if float(p.detach().abs().sum()) == 0:
            torch.nn.init.normal_(p, std=0.1)
    return net


@pytest.mark.parametrize("kind", sorted(PROCESSES))
@pytest.mark.parametrize("split", [1, 3])
def test_micro_batches_sum_to_the_whole(kind: str, split: int) -> None:
    process = PROCESSES[kind]()
    net, (batch, state) = network(process), rows(6)
    whole = process.loss(net, batch, state, process.draw(Draws(seed=1, step=2, rows=np.arange(6), total=6), batch, CHANNELS))
    total, count, parts, levels = 0.0, 0.0, 0, 0
    for start in range(0, 6, split):
        piece = part(batch, slice(start, start + split))
        drawn = process.draw(Draws(seed=1, step=2, rows=np.arange(start, start + split), total=6), piece, CHANNELS)
        loss = process.loss(net, piece, state[start : start + split], drawn)
        total, count = total + float(loss.total.detach()), count + float(process.count(piece))
        parts, levels = parts + loss.parts_P2, levels + loss.levels_K2
    assert total == pytest.approx(float(whole.total.detach()), rel=1e-5)
    assert count == float(process.count(batch))
    torch.testing.assert_close(parts, whole.parts_P2, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(levels, whole.levels_K2, rtol=1e-5, atol=1e-6)
    named = sum(float(whole.parts_P2[i, 0]) for i in process.total_parts)
    assert named == pytest.approx(float(whole.total.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", sorted(PROCESSES))
def test_filler_rows_and_padding_content_change_nothing(kind: str) -> None:
    process = PROCESSES[kind]()
    net, (batch, state) = network(process), rows(6)
    batch = replace(batch, weight_B=torch.tensor([1.0, 1, 0, 1, 1, 0]))
    drawn = process.draw(Draws(seed=1, step=2, rows=np.arange(6), total=6), batch, CHANNELS)
    loss = process.loss(net, batch, state, drawn)
    other = replace(batch, ids_BL=torch.where(batch.weight_B[:, None] > 0, batch.ids_BL, 0))
    other_state = state * torch.where(batch.weight_B > 0, 1.0, 5.0)[:, None, None]
    again = process.loss(net, other, other_state, drawn)
    assert loss.total.item() == pytest.approx(again.total.item(), rel=1e-6)
    assert float(process.count(batch)) <= float(batch.valid_BL[batch.weight_B > 0].sum())


def naive_elf_loss(flow: EmbeddedFlow, net: Denoiser, batch: Batch, x: Tensor, drawn: FlowDraws) -> Tensor:
    """The objective written straight from elf.md A.2 to A.6, three full passes, velocities spelled out, one row at a time."""
    total = torch.zeros(())
    for b in range(len(x)):
        cond = batch.condition_BL[b][:, None]
        xb = x[b].clone()
        if drawn.drop_condition_B[b]:
            xb[batch.condition_BL[b]] = 0
        w, gate = drawn.scale_B[b : b + 1], drawn.decode_B[b : b + 1].float()
        mask = (~batch.condition_BL[b] & batch.valid_BL[b]).float()
        if drawn.decode_B[b]:
            lam = drawn.level_BL[b][:, None]
            z = lam * xb + (1 - lam) * flow.decoder_noise_scale * drawn.noise_BLC[b]
            _, logits = net(z[None], torch.zeros_like(z)[None], torch.ones(1), w, gate, want_tokens=True)
            ce = -torch.log_softmax(logits[0], -1)[torch.arange(LENGTH), batch.ids_BL[b]]
            total = total + (ce * mask).sum()
            continue
        t = drawn.t_B[b]
        z = torch.where(cond, xb, t * xb + (1 - t) * flow.noise_scale * drawn.noise_BLC[b])
        blank = torch.where(cond, xb, torch.zeros_like(xb))

        def velocity(x_hat: Tensor, z: Tensor = z, t: Tensor = t) -> Tensor:
            return (x_hat - z) / max(1 - float(t), flow.t_eps)

        target, half = velocity(xb), blank
        if drawn.self_cond_B[b]:
            with torch.no_grad():
                first = net(z[None], blank[None], t[None], w, gate)[0][0]
                half = torch.where(cond, xb, first)
                second = net(z[None], half[None], t[None], w, gate)[0][0]
                target = target + (1 - 1 / w) * (velocity(second) - velocity(first))
        x_hat = net(z[None], half[None], t[None], w, gate)[0][0]
        total = total + ((velocity(x_hat) - target).square().mean(-1) * mask).sum()
    return total


@pytest.mark.parametrize("cond", [0, 3])
@pytest.mark.parametrize(("decoder_prob", "self_cond_prob"), [(0.2, 0.5), (0.0, 0.0), (1.0, 0.5), (0.0, 1.0)])
def test_elf_loss_and_gradient_equal_the_plain_objective(cond: int, decoder_prob: float, self_cond_prob: float) -> None:
    flow = EmbeddedFlow(decoder_prob=decoder_prob, self_cond_prob=self_cond_prob, condition_drop_prob=0.4)
    net = network(flow)
    batch, state = rows(10, cond=cond)
    drawn = flow.draw(Draws(seed=4, step=0, rows=np.arange(10), total=10), batch, CHANNELS)
    loss = flow.loss(net, batch, state, drawn).total
    found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    plain = naive_elf_loss(flow, net, batch, state, drawn)
    expected = torch.autograd.grad(plain, list(net.parameters()), allow_unused=True)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    for (name, p), f, e in zip(net.named_parameters(), found, expected, strict=True):
        f, e = (torch.zeros_like(p) if g is None else g for g in (f, e))
        assert float((f - e).abs().max()) < 1e-4 * max(float(e.abs().max()), 1e-3), name


def test_the_step_does_only_what_the_objective_needs() -> None:
    """Rows through the network: all once with a graph, the self-conditioned ones once without; logits for decoder rows alone."""
    flow = EmbeddedFlow()
    net, (batch, state) = network(flow), rows(10)
    seen: list[tuple[int, bool]] = []
    logit_rows: list[int] = []
    net.trunk.register_forward_hook(lambda m, a, out: seen.append((len(out), torch.is_grad_enabled())))
    net.token_head.register_forward_hook(lambda m, a, out: logit_rows.append(len(out)))
    flow.loss(net, batch, state, flow.draw(Draws(seed=0, step=0, rows=np.arange(10), total=10), batch, CHANNELS))
    assert seen == [(4, False), (10, True)]
    assert logit_rows == [2]


def test_every_branch_makes_the_same_module_calls() -> None:
    """ZeRO-3 hangs when ranks call different modules: a micro-batch without a branch's rows calls them all the same."""
    calls = []
    for decoder_prob, self_cond_prob in ((0.0, 0.0), (1.0, 0.5), (0.3, 0.6)):
        flow = EmbeddedFlow(decoder_prob=decoder_prob, self_cond_prob=self_cond_prob)
        net, (batch, state) = network(flow), rows(5)
        order: list[str] = []
        for name, module in net.named_modules():
            module.register_forward_hook(lambda m, a, out, name=name, order=order: order.append(name))
        flow.loss(net, batch, state, flow.draw(Draws(seed=0, step=0, rows=np.arange(5), total=5), batch, CHANNELS))
        calls.append(order)
    assert calls[0] == calls[1] == calls[2]


def test_sanity_values_at_initialisation() -> None:
    """elf.md A.7: x_hat is 0, so the flow loss is E[x^2 / (1-t)^2], about 1.79 for unit latents; the CE is near ln V."""
    flow = EmbeddedFlow()
    torch.manual_seed(0)
    net = flow.build_network(SMALL, vocab_size=VOCAB, channels=CHANNELS, length=LENGTH)
    total = torch.zeros(2, 2, dtype=torch.float64)
    for step in range(20):
        batch, state = rows(64, pad=False)
        drawn = flow.draw(Draws(seed=0, step=step, rows=np.arange(64), total=64), batch, CHANNELS)
        drawn = replace(drawn, scale_B=torch.ones(64))  # w = 1: the plain target
        total += flow.loss(net, batch, state, drawn).parts_P2
    flow_loss, ce = (total[:, 0] / total[:, 1]).tolist()
    assert flow_loss == pytest.approx(1.79, rel=0.05)
    assert ce == pytest.approx(math.log(VOCAB), rel=0.15)


def test_published_distributions() -> None:
    """Means and quantiles stated in elf.md A.2, A.3 and A.5."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t = logit_normal(u, -1.5, 0.8)
    assert float(t.mean()) == pytest.approx(0.209, abs=1e-3) and float(t.median()) == pytest.approx(0.182, abs=1e-3)
    assert float(t.quantile(0.95)) == pytest.approx(0.455, abs=2e-3)
    assert float(logit_normal(u, 0.8, 0.8).mean()) == pytest.approx(0.669, abs=1e-3)
    w = log_uniform_shifted(u, 0.5, 5.0)
    assert float(w.mean()) == pytest.approx(2.246, abs=2e-3) and float((w < 1).float().mean()) == pytest.approx(0.208, abs=1e-3)
    grid = torch.linspace(1e-4, 1 - 1e-4, 20_001, dtype=torch.float64)
    density = logit_normal_density(grid, -1.5, 0.8)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-6)
    assert float(torch.trapezoid(density * grid, grid)) == pytest.approx(0.209, abs=1e-3)


@pytest.mark.parametrize(
    ("depth", "hidden", "heads", "inner", "count"),
    [(12, 768, 12, 2048, 104_579_940), (24, 1056, 16, 2816, 342_540_036), (32, 1280, 16, 3413, 652_103_332)],
)
def test_parameter_counts_of_the_paper(depth: int, hidden: int, heads: int, inner: int, count: int) -> None:
    with torch.device("meta"):
        net = Denoiser(NetworkConfig(depth=depth, hidden=hidden, heads=heads), channels=512, vocab_size=32_100, length=1024)
    assert feed_forward_width(hidden) == inner
    assert sum(p.numel() for p in net.parameters()) == count


def test_causal_model_does_not_look_ahead() -> None:
    process = Autoregressive()
    net = network(process)
    ids = torch.randint(0, VOCAB, (1, LENGTH))
    _, logits = net(ids)
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % VOCAB
    _, other = net(changed)
    assert torch.equal(logits[:, :7], other[:, :7]) and not torch.allclose(logits[:, 7:], other[:, 7:])


def test_autoregressive_sampling_follows_the_models_distribution() -> None:
    """Frequencies of the first token over many samples against the softmax of the model: chi-squared within five deviations."""
    process = Autoregressive()
    net = network(process)
    made = process.sample(
        net, Draws(seed=0, step=0, rows=np.arange(4000), total=4000), length=1, channels=0, config=SampleConfig(temperature=0.7)
    )
    p = torch.softmax(net(torch.zeros(1, 1, dtype=torch.int64))[1][0, 0].double() / 0.7, -1).detach()
    counts = torch.bincount(made.ids_BL[:, 0], minlength=VOCAB).double()
    chi2 = float(((counts - 4000 * p) ** 2 / (4000 * p)).sum())
    assert abs(chi2 - (VOCAB - 1)) < 5 * math.sqrt(2 * (VOCAB - 1))


def test_samples_depend_on_seed_and_index_alone() -> None:
    flow = EmbeddedFlow()
    net = network(flow).eval()
    config = SampleConfig(steps=4)
    kwargs = {"length": LENGTH, "channels": CHANNELS, "config": config, "eos_id": 1}
    whole = flow.sample(net, Draws(seed=7, step=0, rows=np.arange(6), total=6), **kwargs)
    alone = flow.sample(net, Draws(seed=7, step=0, rows=np.arange(3, 5), total=2), **kwargs)
    assert torch.equal(whole.ids_BL[3:5], alone.ids_BL) and whole.nfe == 5
    other = flow.sample(net, Draws(seed=8, step=0, rows=np.arange(6), total=6), **kwargs)
    assert not torch.equal(whole.ids_BL, other.ids_BL)


def test_gamma_zero_is_the_ode_and_trajectory_is_recorded() -> None:
    flow = EmbeddedFlow()
    net = network(flow).eval()
    d = Draws(seed=7, step=0, rows=np.arange(2), total=2)
    ode = flow.sample(net, d, length=LENGTH, channels=CHANNELS, config=SampleConfig(sampler="ode", steps=6), record=3)
    sde = flow.sample(net, d, length=LENGTH, channels=CHANNELS, config=SampleConfig(sampler="sde", gamma=0.0, steps=6))
    assert torch.equal(ode.ids_BL, sde.ids_BL) and ode.nfe == sde.nfe == 7
    times = [t for t, _ in ode.trajectory]
    assert len(times) == 3 and times[0] == 0.0 and times == sorted(times)


def test_eos_ends_a_sample() -> None:
    from elf.sampling.finish import mask_after_eos

    ids = torch.tensor([[4, 1, 5, 1], [4, 5, 6, 7], [1, 2, 3, 4]])
    assert mask_after_eos(ids, 1, 0).tolist() == [[4, 0, 0, 0], [4, 5, 6, 7], [0, 0, 0, 0]]
    assert torch.equal(mask_after_eos(ids, None, 0), ids)


def test_bf16_trunk_stays_close_and_keeps_float32_outputs() -> None:
    flow = EmbeddedFlow()
    net = network(flow)
    low = flow.build_network(SMALL, vocab_size=VOCAB, channels=CHANNELS, length=LENGTH, precision="bf16")
    low.load_state_dict(net.state_dict())
    batch, state = rows(6)
    drawn = flow.draw(Draws(seed=0, step=0, rows=np.arange(6), total=6), batch, CHANNELS)
    a, b = (float(flow.loss(n, batch, state, drawn).total.detach()) for n in (net, low))
    assert b == pytest.approx(a, rel=2e-2) and b != a
    assert all(p.dtype == torch.float32 for p in low.parameters())


def test_activation_checkpointing_changes_no_gradient() -> None:
    flow = EmbeddedFlow()
    net = network(flow)
    saving = flow.build_network(SMALL, vocab_size=VOCAB, channels=CHANNELS, length=LENGTH, activation_checkpointing=True)
    saving.load_state_dict(net.state_dict())
    batch, state = rows(6)
    drawn = flow.draw(Draws(seed=0, step=0, rows=np.arange(6), total=6), batch, CHANNELS)
    grads = []
    for n in (net.train(), saving.train()):
        grads.append(torch.autograd.grad(flow.loss(n, batch, state, drawn).total, list(n.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_switches_of_the_paper_change_the_loss() -> None:
    batch, state = rows(10, cond=3)
    base = EmbeddedFlow(condition_drop_prob=0.0)
    drawn = base.draw(Draws(seed=4, step=0, rows=np.arange(10), total=10), batch, CHANNELS)
    kept = replace(base, decoder_keeps_condition=True)
    net = network(base)
    assert float(base.loss(net, batch, state, drawn).parts_P2[1, 0]) != float(kept.loss(net, batch, state, drawn).parts_P2[1, 0])
    padded = replace(base, loss_on_padding=True)
    assert float(padded.count(batch)) == 10 * (LENGTH - 3) > float(base.count(batch))
    head = network(replace(base, tokens_from="estimate"))
    assert head.token_head.weight.shape == (VOCAB, CHANNELS)
    assert float(replace(base, tokens_from="estimate").loss(head, batch, state, drawn).total.detach()) > 0


def test_token_denoising_corrupts_its_share_and_never_shows_the_answer() -> None:
    process = TokenDenoising(corrupt_prob=0.3, random_share=0.0, loss_on="corrupted")
    net = network(process)
    batch, _ = rows(64, pad=False)
    shown: list[Tensor] = []
    net.token_embedding.register_forward_hook(lambda m, args, out: shown.append(args[0]))
    drawn = process.draw(Draws(seed=0, step=0, rows=np.arange(64), total=64), batch, CHANNELS)
    loss = process.loss(net, batch, None, drawn)
    masked = shown[0] == VOCAB
    assert abs(float(masked.float().mean()) - 0.3) < 0.06
    assert float(loss.parts_P2[1, 1]) == float(masked.sum())
    assert torch.equal(shown[0][~masked], batch.ids_BL[~masked])


def test_token_denoising_of_pairs_sees_what_the_codec_will_see() -> None:
    """The source's loss does not feel the target, nor does the target's feel a source that was dropped (elf.md A.1, A.6)."""
    process, batch = TokenDenoising(corrupt_prob=0.0), rows(6, cond=3, pad=False)[0]
    net = network(process)
    hidden = DenoisingDraws(
        corrupt_BL=torch.ones(6, LENGTH), how_BL=torch.ones(6, LENGTH), token_BL=torch.ones(6, LENGTH),
        drop_condition_B=torch.ones(6, dtype=torch.bool),
    )
    seen = replace(hidden, drop_condition_B=torch.zeros(6, dtype=torch.bool))

    def predicted(drawn: DenoisingDraws, ids_BL: Tensor) -> Tensor:
        """[B, L]: log-probability of one token at each position."""
        logits: list[Tensor] = []
        handle = net.register_forward_hook(lambda m, args, out: logits.append(out[1]))
        process.loss(net, replace(batch, ids_BL=ids_BL), None, drawn)
        handle.remove()
        return torch.log_softmax(logits[0].detach(), -1)[..., 0]

    other_target, other_source = batch.ids_BL.clone(), batch.ids_BL.clone()
    other_target[:, 3:], other_source[:, :3] = (batch.ids_BL[:, 3:] + 1) % VOCAB, (batch.ids_BL[:, :3] + 1) % VOCAB
    plain = predicted(seen, batch.ids_BL)
    torch.testing.assert_close(predicted(seen, other_target)[:, :3], plain[:, :3], rtol=0, atol=1e-6)
    assert float((predicted(seen, other_source)[:, 3:] - plain[:, 3:]).abs().min()) > 0
    dropped = predicted(hidden, batch.ids_BL)
    torch.testing.assert_close(predicted(hidden, other_source)[:, 3:], dropped[:, 3:], rtol=0, atol=1e-6)
    assert float((dropped[:, 3:] - plain[:, 3:]).abs().max()) > 1e-4


def test_token_denoising_predicts_padding_where_that_is_asked_for_and_never_looks_at_it() -> None:
    process, (batch, _) = TokenDenoising(loss_on_padding=True), rows(6)
    net = network(process)
    drawn = process.draw(Draws(seed=0, step=0, rows=np.arange(6), total=6), batch, CHANNELS)
    plain, padded = (p.loss(net, batch, None, drawn) for p in (replace(process, loss_on_padding=False), process))
    assert float(padded.parts_P2[0, 1]) == 6 * LENGTH > float(plain.parts_P2[0, 1]) == float(batch.length_B.sum())
    assert float(padded.total.detach()) > float(plain.total.detach())
    other = replace(batch, ids_BL=torch.where(batch.valid_BL, batch.ids_BL, (batch.ids_BL + 1) % VOCAB))
    again = replace(process, loss_on_padding=False).loss(net, other, None, drawn)
    torch.testing.assert_close(again.total, plain.total)
    assert torch.equal(again.parts_P2[1, 1], padded.parts_P2[1, 1])


def test_token_denoising_drops_its_share_of_sources_and_none_of_plain_text() -> None:
    process = TokenDenoising(condition_drop_prob=0.25)
    draws = Draws(seed=0, step=0, rows=np.arange(40), total=40)
    assert int(process.draw(draws, rows(40, cond=2)[0], CHANNELS).drop_condition_B.sum()) == 10
    assert not process.draw(draws, rows(40)[0], CHANNELS).drop_condition_B.any()
    with pytest.raises(ValueError, match=r"process\.condition_drop_prob is 2"):
        TokenDenoising(condition_drop_prob=2.0)


@pytest.mark.parametrize(
    ("settings", "words"), [({"decoder_prob": 1.5}, "between 0 and 1"), ({"guidance_min": 6.0}, "guidance_max"), ({"t_eps": 0.0}, "t_eps")]
)
def test_impossible_settings_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EmbeddedFlow(**settings)


def test_a_wrong_row_length_is_refused() -> None:
    net = network(EmbeddedFlow())
    z = torch.zeros(1, LENGTH + 1, CHANNELS)
    with pytest.raises(ValueError, match=f"rows of {LENGTH} tokens"):
        net(z, z, torch.ones(1), torch.ones(1), torch.ones(1))
