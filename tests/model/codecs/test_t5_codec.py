"""The T5 codec: against a float64 rewrite of the encoder from the paper, and its ways to get or refuse weights."""

import json
import math
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from elf.batch import Batch
from elf.codecs import T5Config, load_codec
from elf.codecs.hub import hub_folder
from elf.codecs.t5 import empty_encoder
from elf.nn.mask import encoder_mask


def bucket(offset: int, buckets: int = 8, farthest: int = 10) -> int:
    """Relative position bucket of key - query: a half for keys behind the query, then exact offsets, then logarithmic ones."""
    half, base, offset = buckets // 2, (buckets // 2 if offset > 0 else 0), abs(offset)
    exact = half // 2
    if offset < exact:
        return base + offset
    large = exact + int(math.log(offset / exact) / math.log(farthest / exact) * (half - exact))
    return base + min(large, half - 1)


def naive_t5(w: dict[str, Tensor], ids_L: Tensor, mask_LL: Tensor, layers: int = 2, heads: int = 4) -> Tensor:
    """Last hidden states [L, C] in float64: pre-norm RMS, unscaled scores plus one bias for all layers, ReLU feed-forward."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    w = {name: tensor.double() for name, tensor in w.items()}
    length = len(ids_L)
    table = w["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    bias_LLA = table[torch.tensor([[bucket(key - query) for key in range(length)] for query in range(length)])]
    x = w["shared.weight"][ids_L]
    for i in range(layers):
        name = f"encoder.block.{i}.layer.0."
        normed = norm(x, w[name + "layer_norm.weight"])
        q, k, v = ((normed @ w[f"{name}SelfAttention.{part}.weight"].T).view(length, heads, -1) for part in "qkv")
        scores_ALL = torch.einsum("iad,jad->aij", q, k) + bias_LLA.permute(2, 0, 1)
        mixed = torch.einsum("aij,jad->iad", scores_ALL.masked_fill(~mask_LL, -math.inf).softmax(-1), v)
        x = x + mixed.reshape(length, -1) @ w[name + "SelfAttention.o.weight"].T
        name = f"encoder.block.{i}.layer.1."
        normed = norm(x, w[name + "layer_norm.weight"])
        x = x + (normed @ w[name + "DenseReluDense.wi.weight"].T).relu() @ w[name + "DenseReluDense.wo.weight"].T
    return norm(x, w["encoder.final_layer_norm.weight"])


@pytest.mark.parametrize(
    "lengths", [([12, 12], [0, 0]), ([12, 7], [0, 0]), ([12, 9], [5, 3])], ids=["full", "padded", "condition"]
)
def test_states_agree_with_the_float64_rewrite(
    t5_folder: Path, random_batch: Callable[..., Batch], lengths: tuple[list[int], list[int]]
) -> None:
    batch, drop_B = random_batch(*lengths), torch.tensor([False, True])
    states_BLC = T5Config(source=str(t5_folder), latent_mean=0.1, latent_std=0.2).build(vocab_size=40).encode(batch, drop_B)
    mask = encoder_mask(batch, drop_B)
    mask_BLL = torch.ones(2, 12, 12, dtype=torch.bool) if mask is None else mask[:, 0].expand(2, 12, 12)
    weights = load_file(t5_folder / "model.safetensors")
    expected_BLC = torch.stack([naive_t5(weights, ids, seen) for ids, seen in zip(batch.ids_BL, mask_BLL, strict=True)])
    assert_close(states_BLC.double(), (expected_BLC - 0.1) / 0.2, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_near_float32(t5_folder: Path, random_batch: Callable[..., Batch]) -> None:
    batch = random_batch([12, 9], [5, 3])
    exact, rounded = (
        T5Config(source=str(t5_folder), precision=precision).build(vocab_size=40).encode(batch) for precision in ("fp32", "bf16")
    )
    error = ((exact - rounded).square().mean() / exact.square().mean()).sqrt()
    assert 1e-4 < error < 0.03, "bfloat16 keeps 8 bits; no error at all would mean that the setting does nothing"


def test_a_whole_t5_gives_its_encoder(tmp_path: Path, random_batch: Callable[..., Batch]) -> None:
    """The published checkpoints hold a decoder as well."""
    from transformers import T5Config as Architecture
    from transformers import T5ForConditionalGeneration

    torch.manual_seed(6)
    architecture = Architecture(
        vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu", pad_token_id=0
    )
    whole, batch = T5ForConditionalGeneration(architecture).eval(), random_batch([12, 12])
    whole.save_pretrained(tmp_path / "whole")
    codec = T5Config(source=str(tmp_path / "whole"), latent_std=1.0).build(vocab_size=40)
    with torch.no_grad():
        expected_BLC = whole.encoder(input_ids=batch.ids_BL).last_hidden_state
    assert torch.equal(codec.encode(batch), expected_BLC)
    codec.save(tmp_path / "codec")
    assert torch.equal(load_codec(tmp_path / "codec").encode(batch), expected_BLC)


def test_size_of_t5_small() -> None:
    encoder = empty_encoder(vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 35_330_816


def test_weights_are_frozen_float32_and_share_one_table(t5_folder: Path) -> None:
    codec = T5Config(source=str(t5_folder)).build(vocab_size=40)
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in codec.encoder.parameters())
    assert not any(module.training for module in codec.encoder.modules())
    loaded = type(codec).from_saved(codec._saved())
    assert loaded.encoder.shared.weight is loaded.encoder.encoder.embed_tokens.weight
    assert torch.equal(codec.token_table_VC, load_file(t5_folder / "model.safetensors")["shared.weight"])


def test_the_fingerprint_does_not_know_where_weights_came_from(t5_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(t5_folder, tmp_path / "elsewhere")
    one, two = (T5Config(source=str(folder)).build(vocab_size=40) for folder in (t5_folder, tmp_path / "elsewhere"))
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != T5Config(source=str(t5_folder), latent_std=0.3).build(vocab_size=40).fingerprint


def test_folders_that_hold_no_t5(t5_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"google-t5/t5-small is not a folder; did you mean hub:google-t5/t5-small\?"):
        T5Config(source="google-t5/t5-small").build(vocab_size=40)
    with pytest.raises(FileNotFoundError, match=r"no config.json with model.safetensors"):
        T5Config(source=str(tmp_path)).build(vocab_size=40)

    broken = tmp_path / "broken"
    shutil.copytree(t5_folder, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="model of type bert, not t5"):
        T5Config(source=str(broken)).build(vocab_size=40)
    (broken / "config.json").write_text(json.dumps(config))
    weights = load_file(broken / "model.safetensors")
    del weights["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights .* \(such as encoder.block.1.layer.1.DenseReluDense.wo.weight"):
        T5Config(source=str(broken)).build(vocab_size=40)
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="could not be read as a T5 encoder"):
        T5Config(source=str(broken)).build(vocab_size=40)


@pytest.mark.parametrize("settings", [{"latent_std": 0.0}, {"latent_std": -1.0}, {"source": ""}, {"source": "hub:"}])
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="codec"):
        T5Config(**settings)  # type: ignore[arg-type]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Points the hub's client at an empty cache and at a port of this machine."""
    from huggingface_hub import constants

    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def test_an_unreachable_hub_is_refused_at_once(hub: Callable[[int], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    hub(port)  # closed again: nobody listens
    with pytest.raises(ValueError, match=r"hub:google-t5/t5-small, .* could not be reached .*local folder .*own codec"):
        T5Config().build(vocab_size=40)


def test_a_silent_hub_is_given_up_in_time(hub: Callable[[int], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        hub(server.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(ValueError, match="could not be reached"):
            hub_folder("hub:some/model", setting="codec.source", way_out="use another", timeout_s=0.2)
        assert time.monotonic() - start < 5


def test_the_local_cache_needs_no_network(hub: Callable[[int], None], t5_folder: Path, tmp_path: Path) -> None:
    hub(1)
    model = tmp_path / "cache" / "models--some--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    shutil.copytree(t5_folder, model / "snapshots" / ("a" * 40))
    assert T5Config(source="hub:some/model").build(vocab_size=40).channels == 32
    assert T5Config(source=f"hub:some/model@{'a' * 40}").build(vocab_size=40).channels == 32
    with pytest.raises(ValueError, match="could not be reached"):
        T5Config(source=f"hub:some/model@{'b' * 40}").build(vocab_size=40)
