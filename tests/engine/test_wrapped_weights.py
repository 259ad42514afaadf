"""Models whose linear layers are of another class: adapters of PEFT, and weights of fewer bits."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.helpers.oracles import dropped_by, gathered_layers
from tests.helpers.pruners import KINDS, Probe, generate
from tests.helpers.tiny import build, fresh_model, inputs
from tests.modeling.test_flops import counted
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.families import find_adapter
from uniprune.modeling.flops import CostModel
from uniprune.modeling.loading import Placement, load, outline

pytestmark = pytest.mark.end_to_end

STEPS = 6
family = pytest.mark.parametrize("family", ["llava", pytest.param("qwen2_5_vl", marks=pytest.mark.exhaustive)])


# --- PEFT -------------------------------------------------------------------------------------------------------
def with_lora(model: Any) -> Any:
    """Wrap a model into PEFT's, with random adapters on all linear layers of tower, projector and decoder."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules="all-linear")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return peft.get_peft_model(model, config).eval()


@family
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_beside_the_weights_are_those_within_them(family: str, kind: str) -> None:
    """Each way of pruning, on the wrapper itself: the same choice and answer as with merged weights."""
    if kind == "compact" and family.startswith("qwen"):
        pytest.skip("positions are of three axes")
    wrapped, x = with_lora(fresh_model(family)), inputs(family, (1, 2))
    merged = copy.deepcopy(wrapped).merge_and_unload().eval()
    with prune(wrapped, KINDS[kind]) as session:
        tokens, logits = generate(wrapped, x, STEPS)
    with prune(merged, KINDS[kind]) as other:
        want_tokens, want = generate(merged, x, STEPS)
    found, expected = (dropped_by(one.reports[0], x) for one in (session, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[layer], expected[layer]) for layer in found)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(logits, want, atol=5e-4, rtol=1e-3)
    assert not torch.allclose(logits, generate(build(family), x, STEPS)[1], atol=0.1)


@family
def test_operations_of_adapters_are_counted(family: str) -> None:
    """Also that attention is as wide as the model's, not as the adapter of its last projection."""
    model = fresh_model(family, "eager")
    with_lora(model)  # in place
    ours, torchs = counted(model, KINDS["intra"], inputs(family))
    assert (ours.vision, ours.projector, ours.llm) == (torchs.vision, torchs.projector, torchs.llm)


def test_learned_prefixes_are_refused() -> None:
    """The cache is filled before the images come: nothing was pruned, and nothing reported."""
    peft = pytest.importorskip("peft")
    model, x = fresh_model("llava"), inputs("llava")
    config = peft.PrefixTuningConfig(peft_type="PREFIX_TUNING", task_type="CAUSAL_LM", num_virtual_tokens=4)
    wrapped = peft.get_peft_model(model, config).eval()
    with (
        prune(wrapped, FastV(ratio=0.34)),
        pytest.raises(UnsupportedError, match="new images on top of a filled KV cache"),
        torch.no_grad(),
    ):
        wrapped(**x)


# --- weights of fewer bits --------------------------------------------------------------------------------------
def torchao_int8(model: Any) -> None:
    """Quantise the decoder's linear layers in place: int8 weights, one scale per row."""
    quantisation = pytest.importorskip("torchao.quantization")
    quantisation.quantize_(model.get_decoder(), quantisation.Int8WeightOnlyConfig())


def bitsandbytes(module: nn.Module, make: Callable[[nn.Linear, Any], nn.Module]) -> None:
    """Replace the linear layers of a module by quantised ones."""
    library = pytest.importorskip("bitsandbytes")
    for name, part in module.named_children():
        if isinstance(part, nn.Linear):
            new = make(part, library.nn)
            new.load_state_dict(part.state_dict())
            setattr(module, name, new.to("cpu"))  # which quantises
        else:
            bitsandbytes(part, make)


def int8(model: Any) -> None:
    """Quantise the decoder's linear layers in place, as `load_in_8bit`."""

    def make(layer: nn.Linear, layers: Any) -> Any:
        shape = layer.in_features, layer.out_features, layer.bias is not None
        return layers.Linear8bitLt(*shape, has_fp16_weights=False)

    bitsandbytes(model.get_decoder(), make)


def nf4(model: Any) -> None:
    """Quantise the decoder's linear layers in place, as `load_in_4bit`: two weights per byte."""

    def make(layer: nn.Linear, layers: Any) -> Any:
        shape = layer.in_features, layer.out_features, layer.bias is not None
        return layers.Linear4bit(*shape, quant_type="nf4", compute_dtype=torch.float32)

    bitsandbytes(model.get_decoder(), make)


quantised = pytest.mark.parametrize("quantise", [torchao_int8, int8, nf4])


@family
@quantised
def test_a_quantised_model_prunes_as_a_loop_over_its_layers(family: str, quantise: Callable[[Any], None]) -> None:
    """Rounded weights give other scores, so the reference is the same model: before the decoder, inside it, by both."""
    model, x = fresh_model(family), inputs(family)
    quantise(model)
    for kind in ("pre", "attention", "both"):
        with prune(model, KINDS[kind]) as session:
            tokens, logits = generate(model, x, STEPS)
        keep = {k: ~columns[0] for k, columns in dropped_by(session.reports[0], x).items()}
        want = gathered_layers(model, x, keep, STEPS)[1]
        assert tokens[0].tolist() == want.argmax(-1).tolist()
        torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(generate(build(family), x, STEPS)[1], generate(model, x, STEPS)[1], atol=0.1)


@family
@quantised
def test_recomputed_attention_is_that_of_quantised_projections(family: str, quantise: Callable[[Any], None]) -> None:
    """The rows of eager attention itself."""
    model, x = fresh_model(family, "eager"), inputs(family)
    quantise(model)
    places = (x["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    with torch.no_grad():
        want = model(**x, output_attentions=True).attentions[1][0]
        probe = Probe(look=lambda view: view.attention("last"), llm=True, layer=2, plan={2: 0.5})
        with prune(model, probe):
            model(**x)
    torch.testing.assert_close(probe.seen[2, 0], want[:, -1:, places], atol=1e-5, rtol=1e-4)


@family
@quantised
def test_operations_of_quantised_layers_are_those_of_their_size(family: str, quantise: Callable[[Any], None]) -> None:
    model = fresh_model(family)
    want = CostModel(find_adapter(model)).prompt([(1, 4, 6)], [40] * 5)
    quantise(model)
    assert CostModel(find_adapter(model)).prompt([(1, 4, 6)], [40] * 5) == want


@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
def test_stored_quantised_checkpoints_are_loaded_and_named(
    library: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """A table of runs shows that the weights are not those of the precision."""
    pytest.importorskip(library)
    if library == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        settings = transformers.TorchAoConfig(Int8WeightOnlyConfig())
    else:
        settings = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    plain, folder = checkpoint("llava"), tmp_path / "quantised"
    make = transformers.AutoModelForImageTextToText.from_pretrained
    make(plain, quantization_config=settings, device_map="cpu").save_pretrained(folder)
    for file in plain.iterdir():
        if not (folder / file.name).exists() and file.suffix != ".safetensors":
            shutil.copy(file, folder)
    place, whole = Placement("float32", "sdpa", "cpu"), ModelEntry(name="tiny", source=str(plain))
    entry = ModelEntry(name="tiny", source=str(folder))
    assert outline(whole, place).precision == "float32"
    assert outline(entry, place).precision == load(entry, place).precision == f"float32 {library}"
