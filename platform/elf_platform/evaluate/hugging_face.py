"""A causal language model of the Hugging Face hub, or of a folder in its form, as a judge. Weights are read from safetensors alone.

Shapes: B texts, L tokens, V vocabulary, H width.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from elf.codecs.hub import hub_folder
from elf.files import sha256_of
from elf.nn.config import Precision
from elf_platform.evaluate.judge import HUB, Judge, JudgeCard

FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "merges.txt")
LONGEST = 1024
"""Tokens that a text is cut to, as the paper's protocol does (elf.md C.3); less where the model takes less."""
SPARE_IDS = 0.05
"""Share of a model's vocabulary that may be without a token: padding of the table to a round number."""


def fetch(source: str) -> Path:
    """The folder of hf:NAME, from the local cache or the hub; ValueError within seconds when neither has it."""
    return hub_folder(
        f"hub:{source.removeprefix(HUB)}", setting="judge", files=FILES, is_whole=_is_whole, written=source,
        way_out="give a folder that holds the model, or the artefact of a judge that was trained here (docs/scores.md)",
    )


class HuggingFaceJudge(Judge):
    """Scores as the official code does: no beginning-of-text token unless the protocol asks for one. bf16 loads the weights in bfloat16;
    log-likelihoods are taken in float32 in either case."""

    def __init__(self, folder: Path, *, name: str, precision: Precision, device: torch.device) -> None:
        if not _is_whole(folder):
            raise ValueError(
                f"{folder} is no judge: neither an artefact of this platform nor a Hugging Face model (config.json, model*.safetensors and "
                "a tokenizer). Give one of these, or hf:NAME"
            )
        self.device = device
        self.model, self.tokenizer = _load(folder, torch.bfloat16 if precision == "bf16" else torch.float32)
        self.model.to(device).eval()
        self.eos_id = int(self.tokenizer.eos_token_id)
        self.start_id = self.tokenizer.bos_token_id
        self.scores_first = self.start_id is not None
        self.card = JudgeCard(
            name=name, kind=f"hugging face {self.model.config.model_type}", weights_sha256=_digest(folder, "model*.safetensors"),
            tokenizer_sha256=_digest(folder, *TOKENIZERS), vocab_size=len(self.tokenizer), precision=precision, device=device.type,
            length=min(LONGEST, int(getattr(self.model.config, "max_position_embeddings", LONGEST))),
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    @torch.no_grad()
    def read(self, ids_BL: Tensor, *, start: bool) -> tuple[Tensor, Tensor]:
        given_BL = F.pad(ids_BL, (1, 0), value=self.start_id) if start else ids_BL
        out = self.model(given_BL, output_hidden_states=True, use_cache=False)
        predicted_BL = given_BL[:, 1:]
        # One text at a time: log-probabilities over 50,000 ids in float32 are the largest tensor of all.
        pairs = zip(out.logits, predicted_BL, strict=True)
        nll_BL = torch.stack([F.cross_entropy(logits_LV[:-1].float(), ids_L, reduction="none") for logits_LV, ids_L in pairs])
        states_BLH = out.hidden_states[-1].float()
        return (nll_BL, states_BLH[:, 1:]) if start else (F.pad(nll_BL, (1, 0)), states_BLH)


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer. ValueError when they do not belong together."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
    except Exception as error:  # a dozen types of several libraries
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the judge {folder} cannot be loaded as a Hugging Face causal model ({first}); fetch it again") from error
    known, ids = model.config.vocab_size, len(tokenizer)
    model_eos = model.config.eos_token_id
    other_end = isinstance(model_eos, int) and tokenizer.eos_token_id is not None and tokenizer.eos_token_id != model_eos
    if ids > known or ids < (1 - SPARE_IDS) * known or other_end:
        raise ValueError(
            f"the judge {folder} has a tokenizer of {ids} ids with end-of-text {tokenizer.eos_token_id}, but its model was trained with "
            f"{known} ids and end-of-text {model_eos}: its figures would mean nothing. Put back the tokenizer that belongs to it"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of the judge {folder} has no end-of-text token, which protocols pad with; take another judge")
    return model, tokenizer


def _is_whole(folder: Path) -> bool:
    return (
        (folder / "config.json").is_file()
        and any(folder.glob("model*.safetensors"))
        and any((folder / name).is_file() for name in TOKENIZERS)
    )


def _digest(folder: Path, *patterns: str) -> str:
    """SHA-256 over names and hashes of the files that match; of one file, its own."""
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if len(paths) == 1:
        return sha256_of(paths[0])
    return hashlib.sha256("".join(f"{path.name} {sha256_of(path)}\n" for path in paths).encode()).hexdigest()
