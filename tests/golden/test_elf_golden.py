"""Forward pass, training step and sampling against numbers recorded from the official implementation (float32, CPU)."""

import pytest
import reference
import torch
from torch import Tensor

from elf.batch import Batch
from elf.draws import Draws
from elf.processes.embedded_flow import EmbeddedFlow, FlowDraws
from elf.sampling.config import SampleConfig
from elf.sampling.flow import CountedNetwork, integrate
from elf.sampling.guidance import Chain
from elf.sampling.path import LinearPath
from elf.schedules import log_uniform_shifted


def test_forward_reproduces() -> None:
    tensors, meta = reference.load("forward")
    net = reference.network(tensors, meta)
    x_hat, logits = net(
        tensors["in.z"], tensors["in.self_cond"], tensors["in.t"], tensors["in.sc_scale"], tensors["in.decode"], want_tokens=True
    )
    assert reference.relative(x_hat, tensors["out.x_hat"]) < 1e-5
    assert reference.relative(logits, tensors["out.logits"]) < 1e-5


def recorded_step() -> tuple[EmbeddedFlow, Batch, Tensor, FlowDraws, dict[str, Tensor], dict[str, str]]:
    """The recorded training step with its random tensors in our form."""
    tensors, meta = reference.load("train_unconditional")
    flow = reference.process(meta)
    decode_B = tensors["draw.decoder_active"] > 0
    level_BL = torch.sigmoid(flow.decoder_level_mean + flow.decoder_level_std * tensors["draw.decoder_level_normal"])
    drawn = FlowDraws(
        t_B=torch.sigmoid(flow.time_mean + flow.time_std * tensors["draw.t_normal"]),
        decode_B=decode_B,
        self_cond_B=(tensors["draw.self_cond_uniform"] < flow.self_cond_prob) & ~decode_B,
        scale_B=log_uniform_shifted(tensors["draw.sc_scale_uniform"], flow.guidance_min, flow.guidance_max),
        level_BL=level_BL.view(tensors["batch.input_ids"].shape),
        noise_BLC=torch.where(decode_B[:, None, None], tensors["draw.decoder_noise"], tensors["draw.noise"]),
        drop_condition_B=tensors["batch.drop_condition"],
    )
    batch = Batch.of_ids(tensors["batch.input_ids"], tensors["batch.length"], tensors["batch.cond_length"])
    return flow, batch, tensors["x0"], drawn, tensors, meta


def test_training_step_reproduces() -> None:
    flow, batch, x0_BLC, drawn, tensors, meta = recorded_step()
    net = reference.network(tensors, meta)
    result = flow.loss(net, batch, x0_BLC, drawn)
    loss = result.total / flow.count(batch)
    loss.backward()
    (flow_sum, flow_count), (ce_sum, ce_count) = result.parts_P2
    assert reference.relative(loss.detach(), tensors["out.loss"]) < 1e-5
    assert reference.relative(flow_sum / flow_count, tensors["out.l2_loss"].double()) < 1e-5
    assert reference.relative(ce_sum / ce_count, tensors["out.ce_loss"].double()) < 1e-5
    expected = reference.renamed(tensors, "grad.")
    found = dict(net.named_parameters())
    assert expected.keys() == found.keys()
    errors = {name: reference.relative(found[name].grad, value) for name, value in expected.items()}
    assert max(errors.values()) < 1e-4, sorted(errors.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("split", [1, 3, 5])
def test_the_sum_of_micro_batches_is_the_whole(split: int) -> None:
    flow, batch, x0_BLC, drawn, tensors, meta = recorded_step()
    net = reference.network(tensors, meta)
    total, count = 0.0, 0.0
    for rows in torch.arange(10).split(split):
        part = Batch(**{name: getattr(batch, name)[rows] for name in batch.__dataclass_fields__})
        part_draws = FlowDraws(**{name: value[rows] for name, value in vars(drawn).items() if value is not None})
        total += flow.loss(net, part, x0_BLC[rows], part_draws).total.item()
        count += float(flow.count(part))
    assert total / count == pytest.approx(float(tensors["out.loss"]), rel=1e-5)


@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_sampling_reproduces(sampler: str) -> None:
    tensors, meta = reference.load(f"sample_{sampler}")
    net = reference.network(tensors, meta)
    counted, scale = CountedNetwork(net, len(tensors["in.z"]), torch.device("cpu")), float(meta["sc_scale"])
    config = SampleConfig(sampler=sampler, steps=int(meta["steps"]), gamma=float(meta.get("gamma", 0.0)))
    z_BLC, _ = integrate(
        Chain(counted.denoise, scale, lambda z_BLC: z_BLC), tensors["in.z"], tensors["in.grid"],
        path=LinearPath(noise_scale=float(meta["noise_scale"]), t_eps=float(meta["t_eps"])), config=config,
        noise=lambda i: tensors[f"draw.noise.{i}"],
    )
    assert reference.relative(z_BLC, tensors["out.z"]) < 1e-5
    assert torch.equal(counted.decode(z_BLC, scale), tensors["out.token_ids"])
    assert counted.nfe == int(meta["steps"]) + 1


def test_recorded_draws_fit_ours() -> None:
    """Our draws have the form that the recorded ones have, so the step above is the step that training makes."""
    flow, batch, x0_BLC, drawn, _, _ = recorded_step()
    made = flow.draw(Draws(seed=0, step=0, rows=torch.arange(10).numpy(), total=10), batch, x0_BLC.shape[-1])
    for name in [name for name, value in vars(drawn).items() if value is not None]:  # all but the keys of dropout, of which there is none
        assert getattr(made, name).shape == getattr(drawn, name).shape, name
        assert getattr(made, name).dtype == getattr(drawn, name).dtype, name
