"""The page in headless Chromium: no console error, no request, no horizontal overflow, in both colour schemes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.report import build_page
from tests.browser import chromium
from tests.harness.synthetic import make_root

EXECUTABLE = chromium.find_chromium()
pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on PATH"),
    pytest.mark.timeout(280),
]

OVERFLOW = """(() => {
  const wide = [...document.querySelectorAll("body *")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !e.closest(".scroll, pre, .hidden, svg");
  });
  return [document.documentElement.scrollWidth, innerWidth, wide.slice(0, 5).map((e) => e.tagName + "." + e.className)];
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    experiment, rows = make_root(root)
    return build_page(experiment, rows, root, root / "experiments" / "synthetic" / "page.html")


def visit(look):
    assert EXECUTABLE is not None
    return chromium.visit(EXECUTABLE, look)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_asks_nobody_and_complains_of_nothing(page, scheme, width):
    def look(tab):
        tab.emulate(width, 900, scheme)
        tab.open(page)
        tab.scroll_through()
        background = tab.run("getComputedStyle(document.body).backgroundColor")
        ink = tab.run("document.querySelector('.main-svg .xtick text').style.fill")
        return tab.requests, tab.problems, tab.run(OVERFLOW), background, ink

    requests, problems, (scroll_width, inner, wide), background, ink = visit(look)
    assert [url for url in requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert problems == []
    assert (scroll_width, wide) == (inner, [])
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    assert ink == {"light": "rgb(102, 112, 121)", "dark": "rgb(152, 162, 173)"}[scheme]


def test_details_table_and_curves_answer(page):
    def look(tab):
        tab.emulate(400, 900, "light")
        tab.open(page)
        tab.scroll_through()
        tab.run("document.querySelectorAll('.open').forEach((button) => button.click())")
        tab.run("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
        found = {
            "overflow": tab.run(OVERFLOW),
            "open": tab.run("document.querySelectorAll('.detail:not([hidden])').length"),
        }
        tab.run("document.querySelector('.chip[data-state=failed]').click()")
        found["failed"] = tab.run(
            "[...document.querySelectorAll('#table tbody:not([hidden])')].map((b) => b.dataset.state)"
        )
        tab.run("document.querySelector('.chip[data-state=failed]').click()")
        tab.run("document.querySelector('[data-key=score]').click()")
        found["scores"] = tab.run("[...document.querySelectorAll('#table tbody')].map((b) => b.dataset.kScore)")
        tab.run("document.querySelector('select').value = 'kl'")
        tab.run("document.querySelector('select').dispatchEvent(new Event('change'))")
        tab.run("document.querySelector('.log').click()")
        found["axis"] = tab.run("document.querySelector('.chart .plotly').layout.yaxis.type")
        legend = "document.querySelector('.chart:last-child .legend button')"
        before = tab.run("document.querySelector('.chart:last-child .plotly').data.length")
        tab.run(f"{legend}.click()")
        found["hidden"] = before - tab.run("document.querySelector('.chart:last-child .plotly').data.length")
        tab.run("document.getElementById('theme').click(); document.getElementById('theme').click()")
        found["theme"] = tab.run("document.documentElement.dataset.theme")
        found["dark"] = tab.run("document.querySelector('.main-svg .xtick text').style.fill")
        return found, tab.problems

    found, problems = visit(look)
    assert problems == []
    scroll_width, inner, wide = found["overflow"]
    assert (scroll_width, wide) == (inner, [])
    assert found["open"] == 30
    assert found["failed"] == ["failed"]
    with_score = [float(s) for s in found["scores"] if s]
    assert with_score == sorted(with_score)
    assert found["scores"][len(with_score) :] == [""] * (30 - len(with_score))
    assert found["axis"] == "log"
    assert found["hidden"] == 2  # the line and its band
    assert (found["theme"], found["dark"]) == ("dark", "rgb(152, 162, 173)")


def test_a_hostile_name_stays_text(tmp_path):
    experiment, rows = make_root(tmp_path)
    hostile = "x</script><script>window.broken=1</script><img src=x onerror='window.broken=2'>"
    for row in rows:
        row["label"] = f"{row['label']} {hostile}"
        row["config"] = row["config"] | {"note": hostile}
    for file in tmp_path.glob("trials/*/media/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"caption": hostile}))
    page = build_page(experiment | {"name": hostile, "text": hostile}, rows, tmp_path, tmp_path / "page.html")

    def look(tab):
        tab.emulate(400, 900, "light")
        tab.open(page)
        tab.scroll_through()
        return (
            tab.run("window.broken"),
            tab.run("document.querySelector('h1').textContent"),
            tab.requests,
            tab.run(OVERFLOW),
        )

    broken, title, requests, (scroll_width, inner, wide) = visit(look)
    assert broken is None
    assert title == hostile
    assert len([url for url in requests if not url.startswith("data:")]) == 1
    assert (scroll_width, wide) == (inner, [])
