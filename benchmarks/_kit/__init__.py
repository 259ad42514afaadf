"""The bridge to VLMEvalKit (Duan et al., arXiv 2407.11691): its prompts and scores, without its side effects.

`tasks` describes each dataset, `dataset.KitDataset` loads, prompts and scores any of them; the official datasets and
the generated mini suite differ only in the TSV file.
"""
