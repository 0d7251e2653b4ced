"""The authors' weights: names, sizes and files, on parameters recorded from their code (tests/golden/forward.safetensors)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from elf.nn.config import NetworkConfig
from elf.nn.denoiser import Denoiser
from elf.official import from_official, load_official, official_sizes, to_official

GOLDEN = Path(__file__).parents[1] / "golden" / "forward.safetensors"


def recorded() -> dict[str, Tensor]:
    return {name.removeprefix("param."): value for name, value in load_file(GOLDEN).items() if name.startswith("param.")}


def checkpoint(params: dict[str, Tensor], step: int = 7) -> dict[str, object]:
    """What the authors' code saves, at its smallest."""
    return {
        "params": {name: value + 1 for name, value in params.items()},
        "ema_params1": params,
        "opt_state": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.002}]},
        "lr_scheduler": None,
        "step": step,
        "epoch": 1,
        "dropout_rng": None,
        "grad_accum_buffers": {},
    }


def test_sizes_are_read_off_the_shapes() -> None:
    sizes = official_sizes(recorded())
    assert sizes.network == NetworkConfig(hidden=48, depth=4, heads=4, bottleneck=8, prefix_tokens=4)
    assert (sizes.channels, sizes.vocab_size) == (24, 61)


def test_every_parameter_finds_its_place_and_the_outputs_are_theirs() -> None:
    record, sizes = load_file(GOLDEN), official_sizes(recorded())
    network = Denoiser(sizes.network, channels=sizes.channels, vocab_size=sizes.vocab_size, length=16)
    network.load_state_dict(from_official(recorded()))
    with torch.no_grad():
        x_hat, logits = network(
            record["in.z"], record["in.self_cond"], record["in.t"], record["in.sc_scale"], record["in.decode"], want_tokens=True
        )
    torch.testing.assert_close(x_hat, record["out.x_hat"], atol=2e-5, rtol=0)
    torch.testing.assert_close(logits, record["out.logits"], atol=2e-5, rtol=0)


def test_renaming_back_gives_their_names_and_values() -> None:
    params = recorded()
    back = to_official(from_official({**params, "feat_rope.freqs_cos": torch.zeros(28, 12)}))
    assert back.keys() == params.keys()
    assert all(torch.equal(back[name], params[name]) for name in params)


@pytest.mark.parametrize("vocab_size", [32100, 32128])
def test_both_vocabularies_of_t5_are_taken_as_they_are(vocab_size: int) -> None:
    params = {**recorded(), "unembed_kernel": torch.zeros(24, vocab_size), "unembed_bias": torch.zeros(vocab_size)}
    assert official_sizes(params).vocab_size == vocab_size
    assert from_official(params)["token_head.unembed.weight"].shape == (vocab_size, 24)


def test_foreign_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 tensors that the network of ELF does not have \(plan\.weight\)"):
        from_official({**recorded(), "plan.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="lack mode_tokens"):
        official_sizes({name: value for name, value in recorded().items() if name != "mode_tokens"})
    with pytest.raises(ValueError, match=r"blocks \[0, 1, 3\], with a gap"):
        official_sizes({name: value for name, value in recorded().items() if not name.startswith("blocks.2.")})
    with pytest.raises(ValueError, match="different numbers of prefix tokens"):
        official_sizes({**recorded(), "t_emb_tokens": torch.zeros(1, 5, 48)})


def test_a_checkpoint_gives_averaged_or_raw_weights(tmp_path: Path) -> None:
    for step in (9, 10, 8):
        torch.save(checkpoint(recorded(), step), tmp_path / f"checkpoint_{step}")
    params, step = load_official(tmp_path)
    assert step == 10
    assert all(torch.equal(value, params[name]) for name, value in recorded().items())
    raw, _ = load_official(tmp_path / "checkpoint_9", "raw")
    assert all(torch.equal(value + 1, raw[name]) for name, value in recorded().items())


def test_an_old_style_checkpoint_loads_too(tmp_path: Path) -> None:
    torch.save(checkpoint(recorded()), tmp_path / "checkpoint_7", _use_new_zipfile_serialization=False)
    params, step = load_official(tmp_path / "checkpoint_7")
    assert step == 7 and torch.equal(params["mode_tokens"], recorded()["mode_tokens"])


def test_safetensors_are_one_set_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: value.half() for name, value in recorded().items()}, path)
    params, step = load_official(tmp_path)
    assert step is None and params["mode_tokens"].dtype == torch.float32
    with pytest.raises(ValueError, match="asking for the raw ones has no effect"):
        load_official(path, "raw")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"not a whole \.safetensors file"):
        load_official(path)


class Harmless:
    """Unpickled in the ordinary way, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_style", [True, False], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path: Path, new_style: bool) -> None:
    trace, path = tmp_path / "it-ran", tmp_path / "checkpoint_1"
    torch.save({**checkpoint(recorded()), "extra": Harmless(trace)}, path, _use_new_zipfile_serialization=new_style)
    with pytest.raises(ValueError, match="was not loaded: reading such a file can run any code"):
        load_official(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the test's file does nothing in the first place"


def test_missing_and_broken_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*org/name.* write hub: before its name"):
        load_official(Path("org/name"))
    with pytest.raises(FileNotFoundError, match=r"no file checkpoint_N and no \.safetensors files"):
        load_official(tmp_path)
    whole = tmp_path / "whole"
    torch.save(checkpoint(recorded()), whole)
    for size in (0, 500, whole.stat().st_size // 2):
        (tmp_path / "checkpoint_1").write_bytes(whole.read_bytes()[:size])
        with pytest.raises(ValueError, match="checkpoint"):
            load_official(tmp_path / "checkpoint_1")
    torch.save({"state_dict": recorded()}, whole)
    with pytest.raises(ValueError, match=r"no 'ema_params1', .*found: state_dict"):
        load_official(whole)
    torch.save({"ema_params1": {"mode_tokens": 3}}, whole)
    with pytest.raises(ValueError, match="not tensors"):
        load_official(whole)
