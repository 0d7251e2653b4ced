"""ELF: flow matching in the space of a frozen encoder, tokens read off at the end by the same network (arXiv 2605.10938).

Follows elf.md A; the official code's choices are the defaults where paper and code differ (E.2), the paper's are switches. The step
does only what the objective needs: the pass without self-conditioning runs on the rows that use it, the guidance target reuses
the trained output (equal to the official extra pass while dropout is 0), token logits exist for decoder rows alone.

Shapes: B rows, L tokens, C channels, V vocabulary. Time: t = 0 noise, t = 1 data. Path: z = t x + (1 - t) noise_scale eps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elf.batch import Batch
from elf.draws import Draws
from elf.nn.config import NetworkConfig, Precision
from elf.nn.denoiser import Denoiser
from elf.processes.base import Loss, Process, Samples, bucket_by_level, target_mask
from elf.sampling.check import check_continuous
from elf.sampling.condition import Condition
from elf.sampling.config import SampleConfig
from elf.sampling.flow import sample_flow
from elf.sampling.path import LinearPath
from elf.schedules import log_uniform_shifted, logit_normal
from elf.settings import Bounds, Scale, Share

LogitMean = Annotated[float, Bounds(least=-30, most=30)]
"""Beyond 30, a share is 0 or 1 to the last bit of float32."""
LogitStd = Annotated[float, Bounds(above=0, most=30)]


@dataclass(frozen=True, kw_only=True)
class FlowDraws:
    """Random tensors of one micro-batch."""

    t_B: Tensor  # flow time of the denoising rows
    decode_B: Tensor  # bool, row trains the decoder branch
    self_cond_B: Tensor  # bool, row is trained with self-conditioning (decoder rows never are)
    scale_B: Tensor  # self-conditioning guidance scale w
    level_BL: Tensor  # share of signal lambda per token, decoder rows
    noise_BLC: Tensor  # unit normal, of the path or of the decoder input
    drop_condition_B: Tensor  # bool, condition hidden from this row
    dropout_B2: Tensor | None = None  # int32, the rows' keys of dropout in the pass without self-conditioning and in the trained one


@dataclass(frozen=True, kw_only=True)
class EmbeddedFlow(Process):
    """Settings of the ELF process; defaults are the published OpenWebText ones."""

    kind: ClassVar[str] = "elf"
    part_names: ClassVar[tuple[str, ...]] = ("flow", "decoder_ce")
    total_parts: ClassVar[tuple[int, ...]] = (0, 1)
    needs_codec: ClassVar[bool] = True

    noise_scale: Scale = 2.0
    """Standard deviation of the noise end of the path, in units of the normalised latents."""
    time_mean: LogitMean = -1.5
    """Mean of the logit of the training time."""
    time_std: LogitStd = 0.8
    """Standard deviation of the logit of the training time."""
    t_eps: Annotated[float, Bounds(above=0, below=1)] = 0.05
    """Lower clamp of 1 - t where velocities are divided by it."""
    decoder_prob: Share = 0.2
    """Share of rows that train the decoder branch (token cross-entropy); the others train the flow."""
    decoder_level_mean: LogitMean = 0.8
    """Mean of the logit of the decoder input's share of signal, drawn per token."""
    decoder_level_std: Annotated[float, Bounds(least=0, most=30)] = 0.8
    """Standard deviation of that logit."""
    decoder_noise_scale: Annotated[float, Bounds(least=0, most=1e6)] = 5.0
    """Noise scale of the decoder input: 5 for unconditional text, 1 for the paper's conditional tasks."""
    self_cond_prob: Share = 0.5
    """Share of flow rows trained with self-conditioning."""
    guidance_min: Scale = 0.5
    """Smallest self-conditioning guidance scale in training."""
    guidance_max: Scale = 5.0
    """Largest self-conditioning guidance scale in training."""
    condition_drop_prob: Share = 0.1
    """Share of conditional rows that train without their condition, for classifier-free guidance."""
    loss_on_padding: bool = False
    """Padding positions count in the loss: on where padding is a run of end-of-text tokens to be learned (conditional tasks)."""
    decoder_keeps_condition: bool = False
    """Paper's text: the decoder branch sees the condition clean. The official code corrupts it like everything else."""

    tokens_from: Literal["trunk", "estimate"] = "trunk"
    """Token head on the trunk's output through a bottleneck (official code) or as one matrix on the estimate (paper's text)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_min > self.guidance_max:
            raise ValueError(f"process.guidance_min {self.guidance_min} is above process.guidance_max {self.guidance_max}; exchange them")

    def build_network(
        self, network: NetworkConfig, *, vocab_size: int, channels: int, length: int, precision: Precision = "fp32",
        activation_checkpointing: bool = False,
    ) -> nn.Module:
        return Denoiser(
            network, channels=channels, vocab_size=vocab_size, length=length, precision=precision,
            activation_checkpointing=activation_checkpointing, tokens_from=self.tokens_from,
        )

    def count(self, batch: Batch) -> Tensor:
        return target_mask(batch, padding=self.loss_on_padding).double().sum()

    def draw(self, draws: Draws, batch: Batch, channels: int) -> FlowDraws:
        length = batch.ids_BL.shape[1]
        decode = draws.coin("decode", self.decoder_prob)
        # Time and self-conditioning are stratified among the flow rows alone: the decoder rows do not use them.
        self_cond = draws.coin("self_cond", self.self_cond_prob, decode.off)
        level_BL = self.decoder_level_mean + self.decoder_level_std * draws.normal("decoder_level", length)
        return FlowDraws(
            t_B=logit_normal(draws.quantile("time", decode.off), self.time_mean, self.time_std),
            decode_B=draws.tensor(decode.on_B),
            self_cond_B=draws.tensor(self_cond.on_B & ~decode.on_B),
            scale_B=log_uniform_shifted(draws.quantile("guidance"), self.guidance_min, self.guidance_max),
            level_BL=torch.sigmoid(level_BL),
            noise_BLC=draws.normal("noise", length, channels),
            drop_condition_B=draws.tensor(draws.coin("drop_condition", self.condition_drop_prob).on_B) & (batch.cond_length_B > 0),
            dropout_B2=torch.stack([draws.keys("dropout first"), draws.keys("dropout")], dim=1),
        )

    def times(self, drawn: FlowDraws) -> Tensor | None:
        return drawn.t_B[~drawn.decode_B]

    def loss(self, network: nn.Module, batch: Batch, state_BLC: Tensor | None, drawn: FlowDraws) -> Loss:
        assert state_BLC is not None, "ELF works on a codec's clean states"
        condition_BL1 = batch.condition_BL[..., None]
        x_BLC = state_BLC.masked_fill(condition_BL1 & drawn.drop_condition_B[:, None, None], 0.0)
        z_BLC, half_BLC, t_B = self._inputs(x_BLC, condition_BL1, drawn)
        gate_B = drawn.decode_B.float()
        mask_BL = target_mask(batch, padding=self.loss_on_padding)

        flow_rows = _rows(~drawn.decode_B)
        decode_rows = _rows(drawn.decode_B)
        sc_rows = _rows(drawn.self_cond_B)
        first_B, trained_B = (None, None) if drawn.dropout_B2 is None else drawn.dropout_B2.unbind(1)
        with torch.no_grad():
            first_SLC, _ = network(
                z_BLC[sc_rows], half_BLC[sc_rows], t_B[sc_rows], drawn.scale_B[sc_rows], gate_B[sc_rows],
                key_B=None if first_B is None else first_B[sc_rows],
            )
            # Filler rows (see _rows) write back what stands there already.
            used_S11 = drawn.self_cond_B[sc_rows][:, None, None]
            guess_SLC = torch.where(condition_BL1[sc_rows], x_BLC[sc_rows], first_SLC)
            half_BLC = half_BLC.index_copy(0, sc_rows, torch.where(used_S11, guess_SLC, half_BLC[sc_rows]))

        x_hat_FLC, logits_DLV = network(
            z_BLC, half_BLC, t_B, drawn.scale_B, gate_B, x_rows=flow_rows, token_rows=decode_rows, want_tokens=True,
            key_B=trained_B,
        )

        divisor_B = (1 - t_B).clamp_min(self.t_eps)
        target_BLC = x_BLC.clone()
        with torch.no_grad():
            # Guided target (elf.md A.5) in x: v* + (1 - 1/w)(v_sc - v_0), where v_sc is the trained output itself.
            trained_BLC = torch.zeros_like(x_BLC).index_copy(0, flow_rows, x_hat_FLC.detach())
            weight_S11 = used_S11 * (1 - 1 / drawn.scale_B[sc_rows])[:, None, None]
            target_BLC = target_BLC.index_add(0, sc_rows, weight_S11 * (trained_BLC[sc_rows] - first_SLC))
        # v_hat - v_target = (x_hat - x_target) / max(1 - t, eps): z cancels.
        error_FL = ((x_hat_FLC - target_BLC[flow_rows]) / divisor_B[flow_rows][:, None, None]).square().mean(-1)
        is_flow_F = (~drawn.decode_B[flow_rows]).float()
        flow_mask_FL = mask_BL[flow_rows] * is_flow_F[:, None]
        flow_F = (error_FL * flow_mask_FL).sum(1)

        ids_DL = batch.ids_BL[decode_rows]
        ce_DL = F.cross_entropy(logits_DLV.float().flatten(0, 1), ids_DL.flatten(), reduction="none").view_as(ids_DL)
        ce_mask_DL = mask_BL[decode_rows] * drawn.decode_B[decode_rows].float()[:, None]
        ce = (ce_DL * ce_mask_DL).sum()

        flow = flow_F.sum()
        sums = torch.stack([flow.detach(), ce.detach()]).double()
        counts = torch.stack([flow_mask_FL.sum(), ce_mask_DL.sum()]).double()
        return Loss(
            total=flow + ce,
            parts_P2=torch.stack([sums, counts], dim=1),
            levels_K2=bucket_by_level(t_B[flow_rows], flow_F, flow_mask_FL.sum(1)),
        )

    def _inputs(self, x_BLC: Tensor, condition_BL1: Tensor, drawn: FlowDraws) -> tuple[Tensor, Tensor, Tensor]:
        """Network inputs before self-conditioning: (z [B, L, C], self-conditioning half [B, L, C], time fed [B])."""
        decode_B11 = drawn.decode_B[:, None, None]
        t_B11 = drawn.t_B[:, None, None]
        flow_BLC = t_B11 * x_BLC + (1 - t_B11) * self.noise_scale * drawn.noise_BLC
        flow_BLC = torch.where(condition_BL1, x_BLC, flow_BLC)
        level_BL1 = drawn.level_BL[..., None]
        decode_BLC = level_BL1 * x_BLC + (1 - level_BL1) * self.decoder_noise_scale * drawn.noise_BLC
        if self.decoder_keeps_condition:
            decode_BLC = torch.where(condition_BL1, x_BLC, decode_BLC)
        z_BLC = torch.where(decode_B11, decode_BLC, flow_BLC)
        half_BLC = torch.where(condition_BL1 & ~decode_B11, x_BLC, torch.zeros_like(x_BLC))
        return z_BLC, half_BLC, torch.where(drawn.decode_B, torch.ones_like(drawn.t_B), drawn.t_B)

    def check_sampling(self, config: SampleConfig, *, conditional: bool) -> None:
        check_continuous(self.kind, config, conditional=conditional)

    def sample(
        self, network: nn.Module, draws: Draws, *, length: int, channels: int, config: SampleConfig,
        condition: Condition | None = None, eos_id: int | None = None, pad_id: int = 0, record: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        self.check_sampling(config, conditional=condition is not None)
        return sample_flow(
            network, draws, length=length, channels=channels, config=config,
            path=LinearPath(noise_scale=self.noise_scale, t_eps=self.t_eps), time_mean=self.time_mean, time_std=self.time_std,
            condition=condition, eos_id=eos_id, pad_id=pad_id, record=record, progress=progress,
        )


def _rows(chosen_B: Tensor) -> Tensor:
    """Indices of the chosen rows; row 0 as a filler of weight zero when there is none, so that every rank calls the same modules
    whatever its rows (ZeRO-3 would hang otherwise)."""
    rows = chosen_B.nonzero().flatten()
    return rows if len(rows) else torch.zeros(1, dtype=torch.int64, device=chosen_B.device)
