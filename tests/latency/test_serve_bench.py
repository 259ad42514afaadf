"""`serve-bench` against small servers over HTTP: every series in turn, rows stored, tables, refusals."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.served_tiny import ServedTiny, serving
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.serving.backend import Served
from uniprune.evaluation.serving.client import Client
from uniprune.evaluation.serving.info import samples, totals
from uniprune.latency.serving.bench import ServeBench
from uniprune.latency.serving.load import Answered, Load, apply_load
from uniprune.latency.serving.options import LoadOptions
from uniprune.latency.serving.requests import image_requests, text_requests
from uniprune.latency.serving.rows import SHORT, ServeFile, ServeResult, ServeRow
from uniprune.latency.serving.tables import notes, texts, to_csv, to_table
from uniprune.modeling.loading import LoadedModel
from uniprune.reports.page.served import FILE, served
from uniprune.utils.console import RunProgress

OPTIONS = LoadOptions(concurrency=(2,), requests=2, rounds=2, warmup=0, side=96, words=6, new_tokens=3)


def bench(output: Path, *addresses: str, options: LoadOptions = OPTIONS) -> list[ServeRow]:
    progress = RunProgress(1, Console(quiet=True))
    return ServeBench(Served(addresses, 20).servers, options, ServeFile(output), progress, 20).run()


@pytest.fixture(scope="module")
def servers(loaded: LoadedModel) -> Iterator[list[ServedTiny]]:
    methods = [MethodSpec("divprune", 0.25), MethodSpec("none"), MethodSpec("random-pre", 0.25)]
    one, two, three = (ServedTiny(loaded, method) for method in methods)
    with serving(one), serving(two), serving(three):
        yield [one, two, three]


@pytest.mark.end_to_end
def test_series_rows_and_tables(servers: list[ServedTiny], tmp_path: Path) -> None:
    addresses = [server.address for server in servers]
    output = tmp_path / FILE
    rows = bench(output, *addresses)
    names = ["none", "divprune", "random-pre", SHORT]
    assert [(row.setup.concurrency, row.setup.series) for row in rows] == [(2, name) for name in names]
    for row in rows:
        assert (len(row.measured.ttft), len(row.measured.tpot), len(row.measured.seconds)) == (4, 4, 2)
        assert min(row.measured.ttft) > 0
    prompt = {row.setup.series: row.measured.prompt for row in rows}
    assert prompt["none"] - prompt["divprune"] == 144 - 36
    assert prompt[SHORT] == pytest.approx(prompt["divprune"], abs=1)
    assert prompt["random-pre"] == prompt["divprune"]
    queued = {row.setup.series: row.measured.spent["queue"] for row in rows}
    assert queued["divprune"] == 1.0  # a quarter second per request, by the server's counter

    asked = [len(server.bodies) for server in servers]
    again = bench(output, *addresses)
    assert [row.identity for row in again] == [row.identity for row in rows]
    assert [len(server.bodies) for server in servers] == [asked[0] + 1, asked[1] + 3, asked[2] + 1]  # lengths only

    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [line["x"] for line in table if line["series"] == "none"] == ["1.0"]
    assert {line["series"] for line in table} == {"none", "divprune 0.25 original", "random-pre 0.25 original", SHORT}
    assert {"in flight", "TTFT p99 ms", "queue ms"} <= {str(column.header) for column in to_table(rows).columns}
    assert "tower ms" not in {column.header for column in to_table(rows).columns}
    other = rows[0].setup.model_copy(update={"model": "larger", "weights": "w"})
    alone = ServeRow(identity="x", setup=other, measured=rows[1].measured)
    several = list(csv.DictReader(io.StringIO(to_csv([*rows, alone]))))
    assert [line["x"] for line in several if line["series"] == "none"] == ["1.0", "1.0"]  # of its own model
    assert texts([*rows, alone])[0][:3] == ["model", "weights", "in flight"]
    shown = served([tmp_path, tmp_path / "none"])  # the section of the page
    assert len(shown["rows"]) == 4
    assert shown["rows"][0][shown["columns"].index("series")] == "none"
    assert served([tmp_path / "none"])["rows"] == []
    printed = " ".join(notes(rows))
    assert "Measured on a CPU" in printed
    assert "p99 of 4 requests is nearly the largest value" in printed


def test_servers_that_differ_in_more_than_their_method_are_refused(servers: list[ServedTiny], tmp_path: Path) -> None:
    one, two, _ = servers
    two.labels = {"dtype": "bfloat16"}
    try:
        with pytest.raises(UserError, match=r"cannot be compared: .* has dtype float32, .* bfloat16; start both"):
            bench(tmp_path / "x", one.address, two.address)
    finally:
        two.labels = {}
    twice = pytest.raises(UserError, match=r"several servers serve divprune 0\.25 positions=original")
    with serving(ServedTiny(one.loaded, one.method)) as twin, twice:
        bench(tmp_path / "x", one.address, twin.address)


def test_requests_are_new_in_every_place_and_the_same_for_every_series() -> None:
    def first(round_: int, concurrency: int) -> list[str]:
        return [str(body["messages"]) for body in islice(image_requests(OPTIONS, round_, concurrency), 3)]

    every = [text for round_ in range(2) for concurrency in (1, 2) for text in first(round_, concurrency)]
    assert len(set(every)) == len(every)
    assert first(1, 2) == first(1, 2)
    [body] = islice(text_requests(OPTIONS, 0, 1, 5), 1)
    assert len(body["messages"][0]["content"][0]["text"].split()) == 5
    assert (body["max_tokens"], body["min_tokens"], body["ignore_eos"]) == (3, 3, True)


def test_a_load_keeps_as_many_requests_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    flying, most = 0, 0

    async def timed(client: object, body: object) -> Answered:
        nonlocal flying, most
        flying, most = flying + 1, max(most, flying + 1)
        await asyncio.sleep(0.001)
        flying -= 1
        return Answered(0.1, 0.1, 5)

    class Quiet:
        async def get(self, path: str) -> str:
            return "a_total 1.0\n"

    monkeypatch.setattr("uniprune.latency.serving.load.timed", timed)
    load = asyncio.run(apply_load(Quiet(), iter([{}] * 9), 9, 4))  # type: ignore[arg-type]
    assert (len(load.answered), most, load.spent) == (9, 4, {"a_total": 0.0})


def test_numbers_of_a_row() -> None:
    spent = {
        "vllm:request_queue_time_seconds_sum": 0.5,
        "vllm:request_queue_time_seconds_count": 4.0,
        "uniprune_images_total": 4.0,
        "uniprune_tower_seconds_total": 1.0,
        "uniprune_selection_seconds_total": 0.2,
    }
    load = Load(2.0, [Answered(0.1, 0.01, 30), Answered(0.3, 0.02, 32)], spent)
    result = ServeResult.of([load, Load(3.0, [Answered(0.2, 0.03, 34)], {})])
    assert (result.throughput, result.prompt) == (3 / 5, 32)
    assert (result.each("queue"), result.each("decode")) == (125, None)
    assert (result.per_image("tower"), result.per_image("selection")) == (250, 50)
    assert (result.share("tower"), result.share("selection")) == (0.2, 0.04)


def test_metrics_are_read_with_labels() -> None:
    text = '# HELP a b\nx{a="1",b="q\\"{}\\\\n"} 2.5\nx{a="2"} 1\ny 3e2\n'
    assert list(samples(text)) == [("x", {"a": "1", "b": 'q"{}\\n'}, 2.5), ("x", {"a": "2"}, 1.0), ("y", {}, 300.0)]
    assert totals(text) == {"x": 3.5, "y": 300.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"concurrency": (1, 0)}, "--concurrency 0 must be at least 1"),
        ({"new_tokens": 1}, "--new-tokens 1 must be at least 2"),
        ({"side": 8}, "--image-side 8 must be at least 16"),
        ({"seed": -1}, "--seed -1 must be from 0"),
    ],
)
def test_options_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LoadOptions(**fields)  # type: ignore[arg-type]


def test_an_address_is_checked(servers: list[ServedTiny]) -> None:
    with pytest.raises(UserError, match="--server 'localhost:8000' must be an address such as http"):
        Served(("localhost:8000",))

    async def unknown() -> str:
        client = Client.open(servers[0].address, 5)
        try:
            return await client.get("/nothing")
        finally:
            await client.close()

    with pytest.raises(UserError, match="answered with status 404: no such path"):
        asyncio.run(unknown())
