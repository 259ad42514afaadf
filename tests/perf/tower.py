"""Times of a vision tower under transformers' sdpa and under the kernel `varlen`, and the difference of its features.

    python -m tests.perf.tower --model qwen2.5-vl-7b --tokens 1280 --batch 1 8 --output tower.jsonl

The weights are random. On a GPU the median time between events around a call, both kernels in turn; needs torch,
transformers and PyYAML only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from uniprune.engine.vision_batch import encode
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.families import find_adapter
from uniprune.modeling.varlen import VARLEN, has_varlen, use_tower_attention
from uniprune.utils.torchvision_compat import ensure_torchvision

ARCHITECTURES = Path(__file__).parents[2] / "configs" / "architectures.yaml"
KERNELS = ("sdpa", VARLEN)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DECODER = {"num_hidden_layers": 4, "vocab_size": 1024, "pad_token_id": None}
"""Fields of a decoder that does not run: small."""


def build(name: str, device: torch.device, dtype: torch.dtype) -> ModelAdapter:
    """Build a tower of published dimensions, with a decoder of a few layers."""
    ensure_torchvision()
    from transformers import AutoConfig, AutoModelForImageTextToText

    fields = yaml.safe_load(ARCHITECTURES.read_text(encoding="utf-8"))[name]
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    text = config.get_text_config()
    for field, value in DECODER.items():
        setattr(text, field, value)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    torch.manual_seed(0)
    with device:
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return find_adapter(model.eval())


def images(adapter: ModelAdapter, tokens: int, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Make the pixel inputs of `batch` images of `tokens` visual tokens."""
    size, tiles = adapter.image_of(tokens)
    generator = torch.Generator().manual_seed(0)
    made = [adapter.random_image(size, tiles, generator) for _ in range(batch)]
    joined = {name: torch.cat([image[name] for image in made]) for name in made[0]}
    return {name: x.to(device, dtype if x.is_floating_point() else x.dtype) for name, x in joined.items()}


def features(adapter: ModelAdapter, visual: dict[str, Any]) -> Tensor:
    """Encode the images: [tokens, D] in float32."""
    output = encode(adapter, visual).pooler_output
    return (output if isinstance(output, Tensor) else torch.cat(list(output))).float()


def milliseconds(work: Callable[[], Any], device: torch.device) -> float:
    """Measure one call, until the device has finished it."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end))


@torch.inference_mode()
def measure(adapter: ModelAdapter, visual: dict[str, Any], repeats: int, device: torch.device) -> dict[str, float]:
    """Time both kernels in turn, after one call of each that does not count.

    Returns:
        Median milliseconds by kernel, their ratio, and the norm of the difference of features over their norm.
    """
    made: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
    for number in range(repeats + 1):
        for kernel in KERNELS:
            use_tower_attention(adapter.model, kernel)
            if number:
                times[kernel].append(milliseconds(lambda: encode(adapter, visual), device))
            else:
                made[kernel] = features(adapter, visual)
    median = {kernel: statistics.median(values) for kernel, values in times.items()}
    sdpa, varlen = (made[kernel] for kernel in KERNELS)
    difference = float((varlen - sdpa).norm() / sdpa.norm())
    return {**median, "ratio": median["sdpa"] / median[VARLEN], "difference": difference}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-vl-7b", metavar="NAME", help="name in configs/architectures.yaml")
    parser.add_argument("--tokens", type=int, default=1280, metavar="N", help="visual tokens of an image")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="images per call")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="measured calls of each kernel")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write a JSON line per batch size")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    dtype = DTYPES[options.dtype or ("bfloat16" if device.type == "cuda" else "float32")]
    adapter = build(options.model, device, dtype)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{options.model}, {where}, {dtype}, torch {torch.__version__}, variable-length kernel: {has_varlen()}")
    if not adapter.packed:
        print("this tower attends to whole images, or passes no bounds: `varlen` does not apply")
        return 0
    lines = []
    for batch in options.batch:
        row = measure(adapter, images(adapter, options.tokens, batch, device, dtype), options.repeats, device)
        print(
            f"{batch} x {options.tokens} tokens: sdpa {row['sdpa']:.1f} ms, varlen {row[VARLEN]:.1f} ms, "
            f"{row['ratio']:.2f}x, features differ by {100 * row['difference']:.2f} % of their norm",
            flush=True,
        )
        setup = {"model": options.model, "batch": batch, "tokens": options.tokens, "device": where, "dtype": str(dtype)}
        lines.append(json.dumps({**setup, **row}) + "\n")
        if options.output is not None:
            options.output.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
