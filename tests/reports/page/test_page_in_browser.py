"""The report in a real Chromium: sort, filter, groups, hover, details, items, narrow, dark, keyboard and touch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chromium import chromium
from tests.helpers.page_runs import made_up, stored
from tests.helpers.paths import PLUGINS
from uniprune.registry import load_plugin
from uniprune.reports.page.items import ItemOptions
from uniprune.reports.page.page import write_page
from uniprune.results.leaderboard import leaderboard

pytestmark = pytest.mark.end_to_end

METHODS = 24
LINES = 1 + 3 * METHODS

Script = Callable[..., Any]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 24 methods at three ratios."""
    pytest.importorskip("plotly", reason="the package plotly is not installed")
    load_plugin(PLUGINS / "small_benchmark.py")
    folder = tmp_path_factory.mktemp("page")
    runs = made_up(METHODS)
    store = stored(runs, folder / "runs")
    options = ItemOptions(4, Path("unused"), lambda run, name: store.root / run / f"{name}.jsonl")
    write_page(leaderboard(runs), options, folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def js(browser: Any, file: Path) -> Script:
    """Open the page afresh, wide and light; return a function that runs a script in it once the page is drawn."""
    size(browser, 1400)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")
    browser.get(file.as_uri())
    run: Script = browser.execute_script
    wait(lambda: run("return document.body.dataset.ready && !!document.querySelector('#curves .main-svg')"))
    return run


def size(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def wait(holds: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)


def column(js: Script, name: str) -> list[str]:
    return list(
        js(
            "const i = columnsShown().findIndex(c => c.name === arguments[0]);"
            "return [...document.querySelectorAll('#table tbody tr:not(.group)')].map(r => r.cells[i].textContent)",
            name,
        )
    )


def search(js: Script, words: str) -> None:
    js("const e = document.querySelector('#find'); e.value = arguments[0]; e.dispatchEvent(new Event('input'))", words)


def choose(js: Script, element: str, value: str) -> None:
    js(f"const e = document.querySelector({element!r}); e.value = {value!r}; e.dispatchEvent(new Event('change'))")


def keys(browser: Any, element: str, *pressed: str) -> None:
    found = browser.find_element("css selector", element)
    browser.execute_script("arguments[0].focus()", found)
    for key in pressed:
        browser.switch_to.active_element.send_keys(key)


def test_it_needs_no_network_and_logs_no_error(js: Script, browser: Any, file: Path) -> None:
    assert js("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert "<script src" not in file.read_text(encoding="utf-8")


def test_it_sorts_down_then_up_then_as_before(js: Script) -> None:
    before = column(js, "method")
    click = "document.querySelector('#table th button[data-column=\"average\"]').click()"
    numbers = []
    for state in ("descending", "ascending"):
        js(click)
        assert js("return document.querySelector('#table th[aria-sort]').ariaSort") == state
        numbers.append([float(text.split()[0]) for text in column(js, "average")])
    assert numbers[0] == sorted(numbers[0], reverse=True)
    assert numbers[1] == numbers[0][::-1]
    js(click)
    assert column(js, "method") == before


def test_it_filters_and_keeps_the_unpruned_model(js: Script) -> None:
    search(js, "method-11 0.222")
    wait(lambda: len(column(js, "method")) == 2)
    assert column(js, "method") == ["none", "method-11"]
    assert js("return document.querySelector('#count').textContent") == f"model-0: 2 of {LINES} lines."
    search(js, "")
    choose(js, "#selects select[name=ratio]", "0.111")
    assert column(js, "method").count("none") == 1
    assert len(column(js, "method")) == METHODS + 1
    assert len(js("return document.querySelector('#curves').data.filter(t => t.marker.symbol === 'star')")) == 1
    search(js, "nothing is called so")
    wait(lambda: column(js, "method") == [])
    assert "Nothing to draw" in js("return document.querySelector('#curves').textContent")


def test_it_groups_by_ratio(js: Script) -> None:
    choose(js, "#group", "ratio")
    groups = js("return [...document.querySelectorAll('#table tr.group')].map(r => r.textContent)")
    assert sorted(groups) == ["ratio 0.111 (24)", "ratio 0.222 (24)", "ratio 0.333 (24)", "ratio 1 (1)"]
    js("document.querySelector('#table th button[data-column=\"average\"]').click()")
    assert column(js, "ratio") == sorted(column(js, "ratio"), key=column(js, "ratio").index)


def test_ties_and_intervals_are_shown(js: Script) -> None:
    tied = js("return [...document.querySelectorAll('#table tr.tied')].map(r => r.textContent)")
    assert len(tied) > 3
    assert all("=" in text for text in tied)
    assert all("[" in text for text in column(js, "average"))
    assert column(js, "batch")[0] == "8"
    assert column(js, "device")[0] == "NVIDIA H100"


def test_every_number_links_to_its_run(js: Script) -> None:
    assert js("return [...document.querySelectorAll('#table td')].filter(c => /^[0-9]/.test(c.textContent) "
              "&& !c.querySelector('a')).map(c => c.textContent)") == ["8"] * LINES  # fmt: skip
    js("document.querySelectorAll('#table tbody tr')[1].cells[2].querySelector('a').click()")
    wait(lambda: not js("return document.querySelector('#view-runs').hidden"))
    text = js("return document.querySelector('#view-runs').innerText")
    for fact in ("NVIDIA H100", "abc123", "2026-03-31", "small-1", "uniprune 1.2.3", "whole benchmarks", "batch TTFT"):
        assert fact in text
    link = js("return document.querySelector('#view-runs dl a').getAttribute('href')")
    assert link.startswith("runs/")
    assert link.endswith("/record.json")


def test_lines_join_ratios_and_times_have_their_condition(js: Script) -> None:
    lines = js("return document.querySelector('#curves').data.map(t => [t.name, t.x, t.mode])")
    assert all(line[1] == [0.111, 0.222, 0.333] and line[2] == "lines+markers" for line in lines[1:])
    assert lines[0][:2] == ["un-pruned", [1]]
    for cost, condition in (("net prefill ms", " (batch 8 on NVIDIA H100)"), ("visual tokens", "")):
        choose(js, "#x", cost)
        title = "return document.querySelector('#curves').layout.xaxis.title.text"
        wait(lambda title=title, wanted=cost + condition: js(title) == wanted)
    js("document.querySelector('#front').click()")
    wait(lambda: js("return document.querySelector('#curves').data.at(-1).mode") == "lines")


def test_hovering_and_touching_a_point_name_it(js: Script, browser: Any) -> None:
    js("document.querySelector('#curves').scrollIntoView({block: 'center'})")
    place = js("const p = [...document.querySelectorAll('#curves .points path')].at(-1).getBoundingClientRect();"
               "return [p.x + p.width / 2, p.y + p.height / 2]")  # fmt: skip
    mouse = {"x": place[0], "y": place[1]}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **mouse})
    readout = "return document.querySelector('#curves-point').textContent"
    wait(lambda: "ratio" in js(readout))
    assert "36 rows" in js(readout)
    assert js("return document.querySelector('#curves .hoverlayer').textContent") != ""
    js("document.querySelector('#curves-point').replaceChildren()")
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 5, "y": 5})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    browser.execute_cdp_cmd("Input.synthesizeTapGesture", mouse)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    wait(lambda: "ratio" in js(readout))


def test_the_keyboard_reaches_points_and_cells(js: Script, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    js("document.querySelector('#curves').scrollIntoView()")
    keys(browser, "#curves", Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    text = js("return document.querySelector('#curves-point').textContent")
    assert "ratio 0.222" in text
    assert text.startswith("method-")
    keys(browser, "#table tbody tr:nth-child(2) a", Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    place = "const c = document.activeElement.closest('td'); return [c.cellIndex, c.parentElement.sectionRowIndex]"
    assert js(place) == [1, 2]
    keys(browser, "#curves", Keys.ENTER)
    wait(lambda: js("return location.hash").startswith("#runs/"))


def test_a_legend_of_many_lines_is_whole_and_switches_them(js: Script) -> None:
    names = js("return [...document.querySelectorAll('#curves-legend button.line')].map(b => b.textContent)")
    assert len(names) == METHODS
    marks = js("return linesOf(rows, 'ratio', 'average').filter(l => !l.whole).map(l => l.colour + l.symbol)")
    assert len(set(marks)) == METHODS
    assert "12 of 24 lines drawn" in js("return document.querySelector('#curves-legend').textContent")
    js("document.querySelector('#curves-legend .all button').click()")
    wait(lambda: js("return document.querySelector('#curves').data.length") == METHODS + 1)
    js("document.querySelector('#curves-legend button.line').click()")
    wait(lambda: js("return document.querySelector('#curves').data.length") == METHODS)


def test_methods_abilities_and_items_are_shown(js: Script) -> None:
    js("location.hash = '#methods/method-3'")
    wait(lambda: js("return document.querySelectorAll('#ledger .main-svg, #spans .main-svg').length") >= 2)
    assert "not registered here" in js("return document.querySelector('#view-methods').innerText")
    assert js("return document.querySelector('#ledger').data.map(t => t.y[0])")[0] == 144
    js("location.hash = '#abilities'")
    corners = ["mathematical", "ocr", "perception", "mathematical"]
    wait(lambda: js("return document.querySelector('#radar').data?.[0].theta") == corners)
    assert js("return document.querySelectorAll('#radar-table tbody tr').length") == METHODS + 1
    js("location.hash = '#items/small'")
    wait(lambda: js("return !!document.querySelector('#item img')"))
    wait(lambda: js("return document.querySelector('#item img').naturalWidth") == 96)
    text = js("return document.querySelector('#item').innerText")
    assert "<i>1</i>" in text, "predictions are text, not markup"
    light = "const c = document.querySelector('#kept canvas'), p = c.getContext('2d');"
    light += "return [.25, .75].map(x => Math.max(...p.getImageData(x * c.width, c.height / 4, 1, 1).data.slice(0, 3)))"
    wait(lambda: "from layer 2 on" in js("return document.querySelector('#kept').innerText"))
    first, second = js(light)
    assert first > 120 > 80 > second
    assert "1 of 4 tokens" in js("return document.querySelector('#kept').innerText")
    js("const s = document.querySelector('#item [type=range]'); s.value = 0; s.dispatchEvent(new Event('input'))")
    wait(lambda: "3 of 4 tokens from layer 0 on" in js("return document.querySelector('#kept').innerText"))
    assert min(js(light)) > 120
    choose(js, "[data-choice=show]", "both wrong")
    assert js("return [...document.querySelectorAll('#items-list .right')].length") == 0


def test_nothing_is_wider_than_a_telephone(js: Script, browser: Any) -> None:
    size(browser, 390)
    browser.refresh()
    wait(lambda: js("return document.body.dataset.ready"))
    for view in ("abilities", "methods/method-3", "runs", "items", "board"):
        js("location.hash = arguments[0]", f"#{view}")
        section = f"#view-{view.split('/')[0]}"
        wait(lambda section=section: not js("return document.querySelector(arguments[0]).hidden", section))
        assert js("return document.documentElement.scrollWidth") == 390, view
    assert 60 < js("return document.querySelector('#table td').getBoundingClientRect().width") < 140


def test_dark_mode_is_dark_in_page_and_plots_and_follows_a_change(js: Script, browser: Any) -> None:
    tick = "return getComputedStyle(document.querySelector('#curves .xtick text')).fill"
    assert js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert js(tick) == "rgb(28, 35, 48)"
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    wait(lambda: js("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)")
    wait(lambda: js(tick) == "rgb(227, 231, 238)")
