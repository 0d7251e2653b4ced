"""Judges: causal language models that say how likely a text is, with everything that identifies them.

Shapes: B texts, L tokens, H width of the judge's hidden states.
"""

import abc
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from elf.artefact import CONFIG, load_artefact
from elf.files import sha256_of
from elf.nn.config import Precision
from elf.nn.token_model import TokenModel
from elf.processes import Autoregressive
from elf_platform.lookup import is_artefact, is_run, resolve

NO_JUDGE = "none"
HUB = "hf:"


@dataclass(frozen=True, kw_only=True)
class JudgeCard:
    """What a score record says about its judge."""

    name: str
    kind: str
    weights_sha256: str
    """Of the weights, or of an artefact's config.json, which holds the hashes of its files."""
    tokenizer_sha256: str
    vocab_size: int
    length: int
    """Tokens of a text at most; what is longer is cut."""
    precision: str
    device: str
    torch: str = dataclasses.field(default_factory=lambda: torch.__version__)


class Judge(abc.ABC):
    """A loaded judge in evaluation mode."""

    card: JudgeCard
    eos_id: int
    device: torch.device
    scores_first: bool
    """Can score the first token of a text."""

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, uncut."""

    @abc.abstractmethod
    def read(self, ids_BL: Tensor, *, start: bool) -> tuple[Tensor, Tensor]:
        """(negative log-likelihood in nats of each token given those before it, float32 [B, L]; hidden states, float32 [B, L, H]).

        State l has seen tokens 0..l at least where another follows. start: score the first token too; without it its column is 0."""


class ArtefactJudge(Judge):
    """An autoregressive model that this platform trained, with the tokenizer of its artefact; its start vector scores first tokens."""

    scores_first = True

    def __init__(self, folder: Path, *, precision: Precision = "fp32", device: torch.device) -> None:
        artefact = load_artefact(folder, device=device, precision=precision)
        if not isinstance(artefact.process, Autoregressive):
            raise ValueError(
                f"{folder} holds a model of the process {artefact.process.kind!r}, which says no likelihood of a text; a judge is an "
                "artefact of the autoregressive process (recipe judge-small), a folder of a Hugging Face model, or hf:NAME"
            )
        trained_with = artefact.lineage.get("tokenizer_sha256")
        if trained_with and trained_with != artefact.tokenizer.fingerprint:
            raise ValueError(
                f"the judge {folder} was trained with the tokenizer {trained_with[:12]}, but holds {artefact.tokenizer.fingerprint[:12]}: "
                "its figures would mean nothing. Put back the tokenizer it was trained with"
            )
        assert isinstance(artefact.network, TokenModel)
        self.network, self.tokenizer, self.device = artefact.network, artefact.tokenizer, device
        self.eos_id = artefact.tokenizer.eos_id
        self.card = JudgeCard(
            name=str(artefact.lineage.get("run", folder.name)), kind="autoregressive artefact", weights_sha256=sha256_of(folder / CONFIG),
            tokenizer_sha256=artefact.tokenizer.fingerprint, vocab_size=artefact.tokenizer.vocab_size, length=artefact.sizes.length,
            precision=precision, device=device.type,
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.encode_batch(list(texts))

    @torch.no_grad()
    def read(self, ids_BL: Tensor, *, start: bool) -> tuple[Tensor, Tensor]:
        states_BLH, logits_BLV = self.network(ids_BL)
        assert logits_BLV is not None
        nll_BL = F.cross_entropy(logits_BLV.float().flatten(0, 1), ids_BL.flatten(), reduction="none").view_as(ids_BL)
        if not start:
            nll_BL[:, 0] = 0.0
        # State l of this network has seen what stands before token l.
        return nll_BL, torch.cat([states_BLH[:, 1:], states_BLH[:, -1:]], dim=1).float()


def load_judge(
    source: str, *, precision: Precision = "fp32", device: torch.device | str = "cpu", storage: Path | None = None
) -> Judge:
    """The judge that ``source`` names: hf:NAME, a folder of a Hugging Face causal model, or an autoregressive artefact or its run, by its
    folder or its name in ``storage``.

    Raises FileNotFoundError or ValueError when there is none, or when its tokenizer is another than it was trained with."""
    device, source = torch.device(device), judge_source(source, storage)
    if source.startswith(HUB):
        from elf_platform.evaluate.hugging_face import HuggingFaceJudge, fetch

        return HuggingFaceJudge(fetch(source), name=source, precision=precision, device=device)
    folder = Path(source)
    if is_artefact(folder):
        return ArtefactJudge(folder, precision=precision, device=device)
    from elf_platform.evaluate.hugging_face import HuggingFaceJudge

    return HuggingFaceJudge(folder, name=folder.resolve().name, precision=precision, device=device)


def judge_source(judge: str, storage: Path | None = None) -> str:
    """What ``load_judge`` is given in any process: hf:NAME as it is, else the absolute folder. FileNotFoundError when there is none."""
    if judge.startswith(HUB):
        return judge
    try:
        return str(resolve(judge, "artefact", storage=storage))
    except FileNotFoundError as error:
        folder = Path(judge).expanduser().absolute()
        if folder.is_dir() and not is_run(folder):
            return str(folder)  # a Hugging Face model, or what that says is none
        raise FileNotFoundError(
            f"there is no judge at {judge}. Judges are autoregressive runs or their artefacts (docs/scores.md says how to make one), "
            f"folders of Hugging Face causal models, hf:NAME, and {NO_JUDGE} for the scores that need none; {error}"
        ) from error
