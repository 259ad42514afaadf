"""Throughput and latency of served models under load (`serve-bench`).

`requests` makes prompts, `load` sends them and takes the times, `bench` runs all series in turn, `rows` is what is
stored, and `tables` what is printed.
"""
