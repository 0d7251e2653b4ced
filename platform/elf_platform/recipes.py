"""Named recipes: functions that return the configuration of a run. Adding one is one function here and one line in RECIPES."""

from collections.abc import Callable
from dataclasses import replace

from elf.codecs import OwnConfig, T5Config, TableConfig
from elf.nn.config import NetworkConfig
from elf.optim.config import OptimConfig
from elf.processes import Autoregressive, EmbeddedFlow
from elf.sampling.config import SampleConfig
from elf_platform.config import DataConfig, RunConfig, TokenizerConfig, TrainConfig

DEFAULT = "tiny"
"""The recipe of a command that names none."""

_OWT_STEPS_PER_EPOCH = 19_017  # elf.md B: 9,737,184 rows over a batch of 512


def tiny() -> RunConfig:
    """Small ELF with an encoder of its own, on the embedded corpus: about four minutes on two CPU cores."""
    encoder = NetworkConfig(hidden=128, depth=2, heads=4)
    return RunConfig(
        data=DataConfig(tokenizer=TokenizerConfig(source="bpe", vocab_size=4096, sample_mb=4.0), length=64),
        # 256 channels for a trunk of 128: at 64 the noise of the path drowns a token (docs/lab-log.md).
        codec=OwnConfig(channels=256, network=encoder, steps=240, global_batch=32, lr=8e-3),
        process=EmbeddedFlow(),
        network=NetworkConfig(hidden=128, depth=4, heads=4, bottleneck=128, prefix_tokens=2),
        # An average over 10,000 steps, as published, would still be mostly initial weights after so short a run.
        optim=OptimConfig(name="muon", lr=8e-3, warmup_steps=30, decay="cosine", final_lr_ratio=0.1, ema_decay=0.98),
        train=TrainConfig(steps=320, global_batch=64, log_every=5, valid_every=40, sample_every=80, checkpoint_every=80),
        sample=SampleConfig(sampler="sde", steps=32, gamma=1.0, guidance=1.5),
    )


def ar_tiny() -> RunConfig:
    """Autoregressive baseline of the size and data of tiny, to compare with."""
    # The process works on token ids and uses no codec; the table costs nothing.
    return replace(tiny(), process=Autoregressive(), codec=TableConfig())


def owt_elf_b() -> RunConfig:
    """ELF-B (105 M parameters) on OpenWebText as published: 5 epochs, 95,085 steps of 512 rows; 8 GPUs."""
    return _owt(NetworkConfig(hidden=768, depth=12, heads=12), epochs=5, micro_batch=16)


def owt_elf_m() -> RunConfig:
    """ELF-M (343 M parameters) on OpenWebText as published: 4 epochs, 76,068 steps of 512 rows; 8 GPUs."""
    return _owt(NetworkConfig(hidden=1056, depth=24, heads=16), epochs=4, micro_batch=8)


def owt_elf_l() -> RunConfig:
    """ELF-L (652 M parameters) on OpenWebText as published: 3 epochs, 57,051 steps of 512 rows; 8 GPUs."""
    return _owt(NetworkConfig(hidden=1280, depth=32, heads=16), epochs=3, micro_batch=4)


def _owt(network: NetworkConfig, *, epochs: int, micro_batch: int) -> RunConfig:
    """The published OpenWebText setting (elf.md A, B, C.2); process, optimiser and sampler defaults are the published ones.

    The text is Skylion007/openwebtext, tokenised here: the authors' own set holds token ids without the text, which the manifest could
    neither describe nor check. Rows are cut from single documents, so their number differs a little from the authors'.
    """
    t5 = "hub:google-t5/t5-small"
    return RunConfig(
        data=DataConfig(paths=("hub:Skylion007/openwebtext",), tokenizer=TokenizerConfig(source=t5), length=1024, packing="document"),
        codec=T5Config(source=t5, latent_mean=0.0, latent_std=0.2, precision="bf16"),
        process=EmbeddedFlow(),
        network=network,
        optim=OptimConfig(name="muon", lr=2e-3, warmup_steps=_OWT_STEPS_PER_EPOCH // 2, clip_norm=1.0, ema_decay=0.9999),
        train=TrainConfig(
            steps=epochs * _OWT_STEPS_PER_EPOCH,
            global_batch=512,
            micro_batch=micro_batch,
            workers=8,
            gpu="on",
            precision="bf16",
            valid_every=1000,
            sample_every=5000,
        ),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tiny": tiny,
    "ar-tiny": ar_tiny,
    "owt-elf-b": owt_elf_b,
    "owt-elf-m": owt_elf_m,
    "owt-elf-l": owt_elf_l,
}
