"""The frozen encoder of a pretrained T5 (Raffel et al. 2020), the codec of ELF (elf.md A.1).

Shapes: B rows, L tokens, C channels (the encoder's width), V rows of the token table (t5-small: 32128, for 32100 ids).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from elf.batch import Batch
from elf.codecs.base import Codec
from elf.codecs.hub import hub_folder, is_hub
from elf.codecs.store import SavedCodec
from elf.nn.config import Precision
from elf.nn.mask import encoder_mask
from elf.settings import Bounds, Settings

_WAY_OUT = (
    "set codec.source to a local folder with config.json and model.safetensors, or use the own codec, which needs no download"
)
# What the encoder's states depend on; the rest of a T5's config.json is the decoder's, dropout, or names and paths.
_ARCHITECTURE = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj",
)
_TIED = "encoder.embed_tokens.weight"  # the same tensor as shared.weight
_BLOCKED = -1e9  # added to a score: its softmax weight is then exactly 0, and unlike finfo.min it stays finite in bfloat16


@dataclass(frozen=True, kw_only=True)
class T5Config(Settings):
    """A pretrained T5 encoder; needs the tokenizer that it was trained with (data.tokenizer.source hub:google-t5/t5-small)."""

    kind: ClassVar[str] = "t5"
    prefix: ClassVar[str] = "codec."

    source: str = "hub:google-t5/t5-small"
    """hub:NAME or hub:NAME@REVISION: fetch it from the Hugging Face hub, or take it from its local cache. A path: a folder with
    config.json and model.safetensors."""
    latent_mean: Annotated[float, Bounds(least=-1e6, most=1e6)] = 0.0
    """Subtracted from the encoder's states."""
    latent_std: Annotated[float, Bounds(least=1e-6, most=1e6)] = 0.2
    """Divides the encoder's states after that; 0.2 is what ELF uses for t5-small."""
    precision: Precision = "fp32"
    """bf16: run the encoder's matrix products in bfloat16 under autocast."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source.removeprefix("hub:"):
            raise ValueError("codec.source is empty, but must be hub:NAME or a folder with config.json and model.safetensors")

    def build(self, *, vocab_size: int) -> "T5Codec":
        """The encoder from ``source``, on the CPU. Its vocabulary is its own: compare with ``check_codec``.

        Raises FileNotFoundError or ValueError when the source cannot be reached or is no T5."""
        folder = hub_folder(self.source, setting="codec.source", way_out=_WAY_OUT) if is_hub(self.source) else Path(self.source)
        return T5Codec(
            _load_encoder(folder.expanduser(), self.source),
            latent_mean=self.latent_mean, latent_std=self.latent_std, precision=self.precision,
        )


class T5Codec(Codec):
    """Last hidden states of a T5 encoder, shifted and scaled by two numbers."""

    kind = "t5"
    max_length = None  # relative positions: any length

    def __init__(self, encoder: Any, *, latent_mean: float, latent_std: float, precision: Precision) -> None:
        """encoder: a T5EncoderModel with float32 weights; it is frozen here."""
        self.encoder = encoder.eval().requires_grad_(False)
        self.latent_mean, self.latent_std, self.precision = latent_mean, latent_std, precision
        self.channels, self.vocab_size = encoder.config.d_model, encoder.config.vocab_size

    @torch.no_grad()
    def encode(self, batch: Batch, drop_condition_B: Tensor | None = None) -> Tensor:
        mask = encoder_mask(batch, drop_condition_B)
        # T5's attention adds a position bias to the scores. A float mask is added along in every release of transformers 5,
        # while its first releases would also have added a bool mask, as zeros and ones.
        bias = None if mask is None else torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, _BLOCKED)
        with torch.autocast(batch.ids_BL.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            states_BLC = self.encoder(input_ids=batch.ids_BL, attention_mask=bias).last_hidden_state
        return (states_BLC.float() - self.latent_mean) / self.latent_std

    def to(self, device: torch.device | str) -> "T5Codec":
        self.encoder.to(device)
        return self

    @property
    def token_table_VC(self) -> Tensor:
        """The encoder's token embeddings, float32."""
        table_VC: Tensor = self.encoder.shared.weight.detach()
        return table_VC

    def _saved(self) -> SavedCodec:
        settings = {"latent_mean": self.latent_mean, "latent_std": self.latent_std, "precision": self.precision}
        architecture = {name: getattr(self.encoder.config, name) for name in _ARCHITECTURE}
        tensors = {name: tensor for name, tensor in self.encoder.state_dict().items() if name != _TIED}
        return SavedCodec(kind=self.kind, settings=settings | {"architecture": architecture}, tensors=tensors)

    @staticmethod
    def from_saved(saved: SavedCodec) -> "T5Codec":
        """The codec that was saved; nothing is read from anywhere else."""
        settings = dict(saved.settings)
        encoder = empty_encoder(**settings.pop("architecture"))
        encoder.load_state_dict(saved.tensors | {_TIED: saved.tensors["shared.weight"]}, assign=True)
        encoder.encoder.set_input_embeddings(encoder.shared)  # one table again, also when it moves to a device
        return T5Codec(encoder, **settings)


def empty_encoder(**architecture: Any) -> Any:
    """A T5EncoderModel of this architecture without memory behind its weights (meta device)."""
    from transformers import T5Config as Architecture
    from transformers import T5EncoderModel

    with torch.device("meta"):
        return T5EncoderModel(Architecture(**architecture))


def _load_encoder(folder: Path, source: str) -> Any:
    """The T5EncoderModel in ``folder``, float32, from safetensors alone."""
    if not folder.is_dir():
        guess = f"; did you mean hub:{source}?" if source.count("/") == 1 and not source.startswith((".", "/", "~")) else ""
        raise FileNotFoundError(f"codec.source {source} is not a folder{guess}. For a pretrained T5, {_WAY_OUT}")
    if not (folder / "config.json").is_file() or not any(folder.glob("model*.safetensors")):
        raise FileNotFoundError(
            f"codec.source {source} has no config.json with model.safetensors (weights in another format, such as .bin, are not "
            f"read); {_WAY_OUT}"
        )
    from transformers import AutoConfig, T5EncoderModel

    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind != "t5":
            raise ValueError(f"it is a model of type {kind}, not t5")
        with torch.random.fork_rng(devices=[]):  # whatever the library draws, a run's own random numbers stay where they were
            encoder, report = T5EncoderModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # the library raises a dozen types for files that are broken in different ways
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"codec.source {source} could not be read as a T5 encoder ({what}); {_WAY_OUT}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"codec.source {source} lacks {len(missing)} weights of the T5 encoder that its config.json describes (such as "
            f"{missing[0]}), which would be random; {_WAY_OUT}"
        )
    return encoder
