"""A small corpus of texts, judges of both kinds with random weights, and a folder of samples."""

from pathlib import Path

import pytest
import torch
from score_subjects import TEXTS, make_judge, write_samples

from elf.data.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(TEXTS * 4), "bpe", 300)


@pytest.fixture(scope="session")
def judge_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact of the autoregressive process."""
    return make_judge(tmp_path_factory.mktemp("judge") / "artefact", tokenizer)


@pytest.fixture(scope="session")
def gpt2_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with random weights and the tokenizer above, as Hugging Face saves them."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id, initializer_range=0.5,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token="</s>", bos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sample_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples") / "folder", TEXTS, tokenizer)
