"""Names under which papers published what other files of this folder already are."""

from __future__ import annotations

from uniprune.registry import publish_method

HORIZON = "arXiv 2512.07580"

publish_method(
    "fastervlm",
    "vispruner",
    "Tokens with the most CLS attention, and no others (FasterVLM, the first version of arXiv 2412.01818).",
    {"important": 1.0},
    paper="arXiv 2412.01818",
    code="Theia-4869/FasterVLM",
    deviations=["Paper: as of vispruner; all of the budget goes to important tokens, so nothing is thinned out."],
)
publish_method(
    "duet-vlm",
    "visionzip+pyramiddrop",
    "Dominant and merged tokens first, then fewer and fewer inside the decoder (CVPR 2026, arXiv 2602.18846).",
    paper="arXiv 2602.18846",
    code="AMD-AGI/DUET-VLM",
    licence="Apache-2.0",
    deviations=[
        "Paper: contextual tokens are means of a few neighbours (`cluster_width=4`) around peripheral tokens of high "
        "score; here as VisionZip's, evenly spaced and with all that are nearest to them.",
        "Paper: salient text tokens rank the visual ones inside the decoder; here the last prompt token.",
        "Release: drops before layers 16 and 24 of 32, to one half and to nothing, after 307, 202 or 102 tokens for an "
        "average of 192, 128 or 64; here PyramidDrop's layers, and both parts keep the same share.",
    ],
)
publish_method(
    "divprune+vtw",
    "divprune+vtw",
    "Diverse tokens, all withdrawn beyond the information horizon (CVPR 2026, arXiv 2512.07580).",
    paper=HORIZON,
    code="YahongWang1/Information-Horizon",
    deviations=["Paper: the horizon is measured by model and task; here its layer follows from the ratio, as VTW's."],
)
publish_method(
    "divprune+random-intra",
    "divprune+random-intra",
    "Diverse tokens, of which deep layers keep a random choice (CVPR 2026, arXiv 2512.07580).",
    paper=HORIZON,
    code="YahongWang1/Information-Horizon",
    deviations=["Paper: chooses at random in deep layers; here before the layer given with `--layer`, by default 2."],
)
