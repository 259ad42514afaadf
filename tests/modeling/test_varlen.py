"""Attention of towers within windows or images of one sequence: one call per layer, features as before."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from tests.helpers.devices import ONE, Places
from tests.helpers.pruners import Probe, generate
from tests.helpers.tiny import COVERED, FAMILIES, fresh_model, inputs, small
from uniprune.engine import prune
from uniprune.engine.vision_batch import encode
from uniprune.errors import UnsupportedError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.latency.timed_model import load_timed
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.families import find_adapter
from uniprune.modeling.loading import Placement, load, place
from uniprune.modeling.varlen import VARLEN, Varlen, by_length, grouped, use_tower_attention
from uniprune.pruning.view import View

PASSES_BOUNDS = small("llava-pixtral").adapter.packed
"""True from a release of transformers after 5.17."""
PIXTRAL = ("llava-pixtral", "mistral3")
PACKED = (
    *("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "glm46v"),
    *PIXTRAL * PASSES_BOUNDS,
)
packed = pytest.mark.parametrize("family", PACKED)


def visual(family: str, images: tuple[int, ...] = (1, 2)) -> dict[str, Tensor]:
    """Return the pixel inputs of a batch whose images differ in size."""
    return {name: x for name, x in inputs(family, images).items() if name not in ("input_ids", "attention_mask")}


def features(model: Any, pixels: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        output = encode(find_adapter(model), pixels).pooler_output
    return output if isinstance(output, Tensor) else torch.cat(list(output))


class Calls(TorchFunctionMode):
    """Count the calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function, self.count = function, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is self._function
        return func(*args, **(kwargs or {}))


def test_towers_of_one_sequence_are_known() -> None:
    assert {name for name in (*FAMILIES, *COVERED) if small(name).adapter.packed} == set(PACKED)


@packed
def test_features_are_those_of_sdpa(family: str) -> None:
    """Without any difference where transformers' own attention runs window by window; Pixtral's has a mask."""
    model, pixels = fresh_model(family), visual(family)
    ours = model.config.vision_config._attn_implementation
    want = features(model, pixels)
    use_tower_attention(model, VARLEN)
    got = features(model, pixels)
    assert float((got - want).norm()) <= 1e-5 * float(want.norm())
    assert family in PIXTRAL or torch.equal(got, want)
    use_tower_attention(model, ours)
    assert torch.equal(features(model, pixels), want)


def test_the_decoder_keeps_its_kernel() -> None:
    model = fresh_model("qwen2_5_vl")
    use_tower_attention(model, VARLEN)
    kernels = [part._attn_implementation for part in (model.config, model.get_decoder().config)]
    assert kernels == ["sdpa", "sdpa"]


def test_windows_of_one_size_are_one_call() -> None:
    """Grids of 4 x 6, 4 x 4 and 6 x 2 tokens in windows of 2 x 2: 13 windows of 16 patches; images of three sizes."""
    model, pixels = fresh_model("qwen2_5_vl"), visual("qwen2_5_vl")
    sdpa = torch.nn.functional.scaled_dot_product_attention
    with Calls(sdpa) as before:
        features(model, pixels)
    use_tower_attention(model, VARLEN)
    with Calls(sdpa) as after:
        features(model, pixels)
    assert (before.count, after.count) == (2 * 13 + 2 * 3, 2 * 1 + 2 * 3)


def test_bounds_are_read_once_for_all_layers() -> None:
    """Those of windows and those of images, wherever torch's own kernel does not run."""
    model, places = fresh_model("qwen2_5_vl"), Places()
    use_tower_attention(model, VARLEN)
    places.put(model, ONE)
    with places:
        features(model, {name: x.to(ONE) for name, x in visual("qwen2_5_vl").items()})
    ours = [name for name, files in places.waits if "/varlen.py" in files[0]]
    assert [name.rpartition(".")[2] for name in ours].count("tolist") == 2


@pytest.mark.parametrize("bounds", [[0, 4, 8, 9, 13, 20, 20, 23], [0, 23], [0, *range(1, 24)]])
def test_grouped_attention_is_that_of_a_block_mask(bounds: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(23, 3, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.zeros(23, 23, dtype=torch.bool)
    for start, stop in pairwise(bounds):
        mask[start:stop, start:stop] = True
    logits = torch.einsum("qhd,khd->hqk", query, key) * 0.3
    want = torch.einsum("hqk,khd->qhd", logits.masked_fill(~mask, -torch.inf).softmax(-1), value)
    got = grouped(query, key, value, by_length(bounds, query.device), 0.3)
    torch.testing.assert_close(got, want)


def test_a_tower_without_bounds_is_refused() -> None:
    x = torch.zeros(1, 2, 4, 8)
    with pytest.raises(UnsupportedError, match=r"Linear passes no bounds of windows .* use --attn sdpa"):
        Varlen()(torch.nn.Linear(1, 1), x, x, x, None, scaling=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torchs_kernel_reads_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without values, from which no number can be read; `test_varlen_gpu.py` has real ones."""
    pytest.importorskip("torch.nn.attention.varlen", reason="torch 2.9 has none")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    with FakeTensorMode():
        fused = torch.empty(40, 3, 4, 80, dtype=dtype, device="cuda")
        query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in fused.unbind(1))
        bounds = torch.empty(6, dtype=torch.int32, device="cuda")
        more: dict[str, Any] = {"cu_seq_lens_k": bounds, "max_length_k": 16, "is_causal": False}
        out, weights = Varlen()(
            None, query, key, value, None, scaling=80**-0.5, cu_seq_lens_q=bounds, max_length_q=16, **more
        )
    assert (out.shape, out.dtype, out.device.type, weights) == ((1, 40, 4, 80), dtype, "cuda", None)


def test_flash_kernels_are_refused_where_pixtral_passes_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers 5.17, whose flash kernels would attend across images."""
    monkeypatch.setattr(inspect, "getsource", lambda _: "")
    model = fresh_model("llava-pixtral")
    assert not find_adapter(model).packed
    use_tower_attention(model, VARLEN)
    with pytest.raises(
        UnsupportedError, match=r"kernel 'varlen_flash' no bounds .* attend to each other in Pixtral's tower"
    ):
        find_adapter(model)


# --- quantities of the tower ------------------------------------------------------------------------------------------
def quantities(model: Any, x: dict[str, Tensor]) -> list[Tensor]:
    """Return attention received, exchanged and keys of a middle and the last block, for every image."""

    def look(view: View) -> list[Tensor]:
        vision = view.vision
        return [
            part
            for layer in (0, -1)
            for part in (vision.importance(layer), vision.exchanged(layer), vision.keys(layer))
        ]

    probe = Probe(look=look, layers=(0, -1), plan={0: 0.5})
    with prune(model, probe):
        generate(model, x, 1)
    return [part for seen in probe.seen.values() for part in seen]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", *PIXTRAL[:PASSES_BOUNDS]])
def test_methods_read_the_same_scores(family: str) -> None:
    x = inputs(family, (1, 2))
    model = fresh_model(family)
    want = quantities(model, x)
    use_tower_attention(model, VARLEN)
    got = quantities(model, x)
    assert len(got) == len(want) > 0
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


# --- choice -----------------------------------------------------------------------------------------------------------
def test_auto_keeps_sdpa_on_the_cpu() -> None:
    assert place(device="cpu") == Placement("float32", "sdpa", "cpu")
    assert place(dtype="bfloat16", device="cpu").tower is None


@pytest.mark.parametrize(
    ("dtype", "attention", "found"),
    [
        ("auto", "auto", ("sdpa", VARLEN)),
        ("float16", "auto", ("sdpa", VARLEN)),
        ("float32", "auto", ("sdpa", None)),
        ("auto", "sdpa", ("sdpa", None)),
        ("auto", "eager", ("eager", None)),
        ("float32", VARLEN, ("sdpa", VARLEN)),
    ],
)
def test_auto_is_varlen_for_half_precision_on_a_gpu(
    dtype: str, attention: str, found: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    placed = place(dtype, attention)
    assert (placed.attention, placed.tower) == found


def test_the_placement_of_other_towers_has_no_kernel_of_its_own() -> None:
    placed = place(attention=VARLEN, device="cpu")
    assert placed.of(small("qwen2_5_vl").adapter) == placed
    assert placed.of(small("llava").adapter) == Placement("float32", "sdpa", "cpu")
    assert str(placed) == "float32, sdpa, varlen in the vision tower, cpu"


@pytest.mark.end_to_end
@pytest.mark.parametrize(("family", "kernel"), [("qwen2.5-vl", VARLEN), ("llava", None)])
def test_a_loaded_model_has_the_kernel_and_records_it(
    family: str, kernel: str | None, checkpoint: Callable[[str], Path]
) -> None:
    entry = ModelEntry(name="tiny", source=str(checkpoint(family)))
    loaded = load(entry, place(attention=VARLEN, device="cpu"))
    assert loaded.placement.tower == kernel
    assert ("flash" in loaded.adapter.vision.config._attn_implementation) == (kernel is not None)
    setup = Run(loaded, MethodSpec("none"), RunOptions()).record.setup
    assert (setup.attention, setup.tower_attention) == ("sdpa", kernel)
    other = setup.model_copy(update={"tower_attention": None if kernel else VARLEN})
    assert other.identity() != setup.identity()


@pytest.mark.end_to_end
@pytest.mark.parametrize(("name", "kernel"), [("tiny-qwen2.5-vl", VARLEN), ("tiny-llava", None)])
def test_a_timed_model_has_the_kernel(name: str, kernel: str | None) -> None:
    model = load_timed(name, random_weights=True, placement=place(attention=VARLEN, device="cpu"))
    assert model.placement.tower == kernel
    assert ("flash" in model.adapter.vision.config._attn_implementation) == (kernel is not None)
