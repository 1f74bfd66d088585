"""The page's pure parts: figures, leaderboard, folders, text, and pages of partial data."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from harness import runfolder
from harness.gif import gif
from harness.learner import Media
from harness.report import board, build_page, figures, media, provenance, text
from harness.report.folders import RunFolder, column, read_folder, read_metrics
from harness.report.page import embed_json
from harness.spec import Trial
from harness.statistics import group_trials, pool_lines
from tests.harness.synthetic import make_root


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    experiment, rows = make_root(root)
    page = build_page(experiment, rows, root, root / "experiments" / "synthetic" / "page.html")
    return root, experiment, rows, page.read_text()


def _row(identity="t0", state="done", seed=0, score=None, **more):
    row = {"id": identity, "learner": "ppo", "label": "ppo", "seed": seed, "state": state, "score": score}
    return row | {"config": {}, "reason": "", "progress": 0, "budget": 10, "unit": "steps"} | more


# -- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_valid_plotly():
    lines = [(np.arange(5), np.arange(5) + k) for k in range(3)]
    curve = figures.curve_figure([("a", 0, pool_lines(lines)), ("b", 9, pool_lines(lines[:1]))], "loss", "env_steps")
    points = figures.points_figure([[0, 1], [2, 3]], [[0, 0]], "caption")
    matrix = figures.matrix_figure([[3, 1], [0, 0]], ("cat", "dog"))
    for figure in (curve, points, matrix):
        assert go.Figure(figure).to_dict()["data"]  # raises for unknown properties
        json.dumps(figure, allow_nan=False)
    assert [trace["name"] for trace in curve["data"]] == ["a 95 %", "a", "b"]  # one seed has no band
    assert matrix["data"][0]["z"] == [[0.75, 0.25], [0.0, 0.0]]
    assert matrix["data"][0]["x"] == ["cat", "dog"]
    for scheme in ("light", "dark"):
        go.layout.Template(layout=figures.theme(scheme))


def test_points_and_curves_are_thinned():
    cloud = figures.points_figure(np.random.default_rng(0).normal(size=(9000, 2)))
    assert len(cloud["data"][0]["x"]) == figures.MOST_POINTS
    curve = figures.curve_figure([("a", 0, pool_lines([(np.arange(9000), np.arange(9000))], 500))], "loss", "rows")
    assert len(curve["data"][0]["x"]) == 500


def test_every_colour_of_a_figure_has_a_partner_in_the_dark_scheme():
    lines = [("a", k, pool_lines([([0, 1], [0.0, k]), ([0, 1], [1.0, 2.0])])) for k in range(8)]
    drawn = [
        figures.curve_figure(lines, "m", "u"),
        figures.points_figure([[0, 0]], [[1, 1]]),
        figures.matrix_figure([[1]]),
    ]
    used = set(re.findall(r'"(#[0-9a-f]{6}|rgba\([^)]*\))"', json.dumps(drawn)))
    assert used
    assert used <= set(figures.RECOLOUR)


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as seen with each deficiency.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = np.array(
    [
        [0.2104542553, 0.793617785, -0.0040720468],
        [1.9779984951, -2.428592205, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.808675766],
    ]
)


def _linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _oklab(colour: str, matrix) -> np.ndarray:
    seen = np.clip(np.asarray(matrix) @ _linear(colour), 0, 1)
    return LAB @ np.cbrt(LMS @ seen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize(("many", "least"), [(6, 0.11), (8, 0.08)])
def test_the_colours_stay_apart(scheme, deficiency, many, least):
    """Ottosson's Oklab distance; 0.02 is about the least that can be noticed."""
    seen = [_oklab(c, DEFICIENCIES[deficiency]) for c in figures.PALETTE[scheme][:many]]
    gaps = {(i, j): float(np.linalg.norm(seen[i] - seen[j])) for i, j in itertools.combinations(range(many), 2)}
    assert min(gaps.values()) > least, min(gaps.items(), key=lambda item: item[1])


@pytest.mark.parametrize(("scheme", "ground"), [("light", "#ffffff"), ("dark", "#191d22")])
def test_lines_and_text_have_contrast(scheme, ground):
    """WCAG 2: 3 for graphics, 4.5 for text."""

    def contrast(colour: str) -> float:
        lights = sorted(float([0.2126, 0.7152, 0.0722] @ _linear(c)) + 0.05 for c in (colour, ground))
        return lights[1] / lights[0]

    assert min(map(contrast, figures.PALETTE[scheme])) > 3
    assert min(contrast(figures.INK[scheme]), contrast(figures.MUTED[scheme])) > 4.5


# -- folders and text ------------------------------------------------------------------------------------------------


def test_torn_and_missing_files_are_read_as_far_as_they_go(tmp_path):
    assert read_folder(tmp_path / "none") == RunFolder(tmp_path / "none")
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"progress": 1, "a": 2}\n{"progress": 2, "a": null}\n{"progress": 3, "b": 1}\n{"progress": 4, "a')
    rows = read_metrics(file)
    assert [row["progress"] for row in rows] == [1, 2, 3]
    progress, values = column(rows, "a")
    assert progress == [1, 2]
    assert (values[0], np.isnan(values[1])) == (2.0, True)
    (tmp_path / "result.json").write_text("[1, 2]")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    assert read_folder(tmp_path).result == {}


def test_text():
    assert [text.number(v, 1) for v in (None, 1234.56, -2.0, float("inf"))] == ["–", "1\u202f234.6", "−2.0", "∞"]  # noqa: RUF001
    assert [text.duration(s) for s in (0.43, 59.6, 185, 7620, 273_600)] == [
        "0.4 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
        "3 d 4 h",
    ]
    assert text.flatten({"a": {"b": [1, 2.5], "c": None}, "d": True}) == [
        ("a.b", "1, 2.5"),
        ("a.c", "none"),
        ("d", "yes"),
    ]
    assert text.moment(0) == text.moment("1970-01-01T00:00:00+00:00") == "1 January 1970, 00:00 UTC"
    assert text.short("classifier", "classifier net.kind=cnn") == "net.kind=cnn"
    assert text.short("ppo", "ppo") == "ppo"


def test_texts_are_written_and_shown_line_by_line_beside_the_data(tmp_path):
    rows = [_row("a0", seed=0, score=1.0, label="a")]
    item = Media("text", np.array(["to <b>be\nor", *["x"] * 50]), np.array(["y" * 1000]), caption="two texts")
    trial = Trial(id="a0", learner="text-mle", version=1, config={}, seed=0, label="a")
    written = runfolder.RunFolder(tmp_path, trial)
    written.open("steps", {}, 0, 0)
    written.media({"texts": item})
    folders = {"a0": read_folder(tmp_path / "trials" / "a0")}
    groups = group_trials(rows, lambda row: row["score"])
    slots = {(groups[0].learner, groups[0].label): 0}
    (entry,) = media.samples(groups, folders, slots)
    assert entry["caption"] == "two texts"
    (panel,) = entry["panels"]
    assert panel["texts"] == ["to <b>be\u21b5or", *["x"] * (media.MOST_TEXTS - 1)]
    assert panel["reference"] == ["y" * media.MOST_CHARACTERS]
    folders["a0"].media["texts"]["data"] = "no list"
    assert media.samples(groups, folders, slots) == []


def test_media_reads_only_its_own_folder(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    folder = RunFolder(tmp_path / "trial")
    assert media._image(folder, "../../secret.png") is None
    assert media.data_uri(secret) is None  # not a picture


def _filmed(root, labels=("a",), seeds=3, file=None):
    """(groups, folders, slots) of done trials with one video each."""
    rows = [_row(f"{name}{k}", seed=k, score=float(k), label=name) for name in labels for k in range(seeds)]
    film = gif(np.zeros((2, 8, 8, 3), dtype=np.uint8), 25.0) if file is None else file
    folders = {}
    for row in rows:
        (root / row["id"] / "media").mkdir(parents=True)
        (root / row["id"] / "media" / "episode.gif").write_bytes(film)
        about = {"kind": "video", "file": "episode.gif", "caption": "fine"}
        folders[row["id"]] = RunFolder(root / row["id"], media={"episode": about})
    groups = group_trials(rows, lambda row: row["score"])
    return groups, folders, {(g.learner, g.label): k for k, g in enumerate(groups)}


def test_videos_of_two_seeds_a_label(tmp_path):
    first, second = media.videos(*_filmed(tmp_path, labels=("a", "b")))
    assert (first["label"], second["label"], second["name"]) == ("a", "b", "episode")
    assert [(p["seed"], p["caption"]) for p in first["panels"]] == [(0, "fine"), (2, "fine")]
    assert first["panels"][0]["video"].startswith("data:image/gif;base64,R0lGOD")
    assert first["panels"][0]["still"].startswith("data:image/png;base64,iVBOR")


def test_videos_do_not_make_the_page_heavy(tmp_path, monkeypatch):
    filmed = _filmed(tmp_path, labels=("a", "b"))
    one = sum(len(panel["video"]) for panel in media.videos(*filmed)[0]["panels"])
    monkeypatch.setattr(media, "MOST_BYTES_OF_VIDEOS", one)
    assert [entry["label"] for entry in media.videos(*filmed)] == ["a"]
    monkeypatch.setattr(media, "MOST_BYTES", 10)
    assert media.videos(*filmed) == []


@pytest.mark.parametrize("file", [b"", b"<svg onload=x>", b"GIF89a"])
def test_what_is_no_gif_is_left_out(tmp_path, file):
    assert media.videos(*_filmed(tmp_path, file=file)) == []


def test_videos_come_from_the_own_folder_alone(tmp_path):
    groups, folders, slots = _filmed(tmp_path, seeds=1)
    folders["a0"].media["episode"]["file"] = "../media/episode.gif"
    assert media.videos(groups, folders, slots) == []


# -- leaderboard, provenance -----------------------------------------------------------------------------------------


def _boards(rows, direction="max"):
    groups = group_trials(rows, lambda row: row["score"])
    keys = [(g.learner, g.label) for g in groups]
    return board.boards(groups, {k: ("return", direction) for k in keys}, {k: i for i, k in enumerate(keys)})


@pytest.mark.parametrize(("direction", "first"), [("max", "high"), ("min", "low")])
def test_the_best_label_stands_first_and_the_scoreless_last(direction, first):
    rows = [
        _row("a", "running", label="none yet"),
        _row("b", score=1.0, label="low"),
        _row("c", score=2.0, label="high"),
    ]
    (found,) = _boards(rows, direction)
    assert [entry["label"] for entry in found["entries"]][0::2] == [first, "none yet"]
    assert found["entries"][2]["mean"] == "–"  # noqa: RUF001
    assert found["entries"][0]["interval"] == "–"  # noqa: RUF001


def test_a_diverged_trial_counts_and_its_huge_worst_score_does_not_stretch_the_axis():
    rows = [_row("a", score=0.5, seed=0), _row("b", score=0.7, seed=1), _row("c", "diverged", score=1e6, seed=2)]
    (found,) = _boards(rows, "min")
    entry = found["entries"][0]
    assert entry["n"] == 3
    assert entry["mean"].startswith("333")
    assert entry["others"] == "1 diverged"
    assert [dot["lost"] for dot in entry["strip"]["dots"]] == [False, False, True]
    assert entry["strip"]["dots"][2]["x"] == 100 - board.MARGIN
    assert found["axis"] == ("0.4000", "0.8000")  # half the range of the others beyond them


def test_a_cohort_is_paid_once_and_a_reused_trial_not_at_all():
    cohort = {"id": "c1", "threads": 2}
    folders = {k: RunFolder(Path(k), result={"cohort": cohort, "seconds": 10.0}) for k in ("a", "b")}
    folders |= {"r": RunFolder(Path("r"), result={"cohort": {"id": "c0"}, "seconds": 99.0}), "n": RunFolder(Path("n"))}
    rows = [_row("a"), _row("b"), _row("r", reused=True), _row("n", "running", cohort="c2", seconds=4.0)]
    entries = provenance.cohorts(rows, folders)
    assert [(e["id"], e["trials"], e["seconds"], e["cpu_seconds"]) for e in entries] == [
        ("c1", 2, 10, 20),
        ("c2", 1, 4, 4),
    ]
    assert provenance.cost(entries) == {"time": "14 s", "cpu_time": "24 s"}
    assert provenance.costs_by_learner(entries)[0]["each"] == "8.0 s"


# -- the whole page --------------------------------------------------------------------------------------------------


class Sources(HTMLParser):
    """Collects what a page would ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]


def test_the_page_is_self_contained_and_small(synthetic):
    *_, html = synthetic
    parser = Sources()
    parser.feed(html)
    assert {"script", "style", "table", "select"} <= set(parser.tags)
    assert "iframe" not in parser.tags
    assert all(source.startswith(("data:", "#")) for source in parser.found)
    assert "default-src 'none'" in html
    from plotly.offline import get_plotlyjs

    assert len(html) < len(get_plotlyjs()) + 1_000_000


def test_the_page_shows_every_state_and_the_numbers(synthetic):
    _, _, rows, html = synthetic
    for row in rows:
        assert row["id"] in html
    for expected in (
        "loss became NaN",
        "attention needs 1.2 GB",
        "mean, Student&#39;s t",
        "net.kind=transformer",
        "2eeee38c0ffee",
    ):
        assert expected in html, expected
    assert "28<small> of 30" in html
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))
    assert next(iter(data["curves"]["curves-0"])) == "eval/return"
    assert len(data["figures"]) == 4 + 4  # four rings, four confusion matrices


def test_building_twice_gives_the_same_page(synthetic, tmp_path):
    root, experiment, rows, html = synthetic
    again = build_page(experiment, rows, root, tmp_path / "page.html").read_text()
    clean = [re.sub(r"page built [^<]*", "", page) for page in (html, again)]
    assert clean[0] == clean[1]
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [_row(state="planned")],
        [_row(state="failed", reason="it broke")],
        [_row(score=1.0)],
        [_row(score=float("-inf"), state="diverged"), _row("t1", seed=1, score=2.0)],
        [_row(learner="gone", label="gone", state="diverged")],
    ],
    ids=["none", "planned", "failed", "one", "infinite", "unknown learner"],
)
def test_pages_of_partial_data(rows, tmp_path):
    html = build_page({"name": "partial"}, rows, tmp_path, tmp_path / "a" / "page.html").read_text()
    assert "<h1>partial</h1>" in html
    for row in rows:
        assert row["id"] in html


def test_embedded_json_cannot_close_its_element():
    value = {"</script><!--": "\u2028&amp;", "n": None}
    embedded = str(embed_json(value))
    assert not set("<>&\u2028") & set(embedded)
    assert json.loads(embedded) == value


MACHINE_SECRETS = ("Example CPU", "Linux x86_64", "2eeee38c0ffee", "Traceback")


def test_the_shared_page_says_nothing_about_the_machine_or_the_code(synthetic, tmp_path):
    root, experiment, rows, _ = synthetic
    where = {
        "reason": "'/home/planted user/a.bin' is missing",
        "state": "failed",
        "config": {"data": "/home/planted/my.csv"},
    }
    rows = [rows[0] | where | {"label": "classifier data=/home/planted/my.csv"}, *rows[1:]]
    told = dict(experiment) | {"text": "data: /home/planted/my.csv"}
    page = build_page(told, rows, root, tmp_path / "shared.html", shared=True).read_text()
    own = build_page(told, rows, root, tmp_path / "own.html").read_text()
    assert "<h4>Machine</h4>" in own
    for secret in (
        *MACHINE_SECRETS,
        "planted",
        "<h4>Machine",
        "<h4>Versions",
        "<h3>Machine",
        "<h3>Versions",
        "<h3>Commit",
    ):
        assert secret not in page, secret
    for secret in MACHINE_SECRETS:
        assert secret in own, secret
    assert "data: .../my.csv" in page
    assert "classifier data=.../my.csv" in page
    assert "&#39;.../a.bin&#39; is missing" in page
    pictures = re.findall(r"data:image/[^'\"]+", own)
    assert pictures
    assert re.findall(r"data:image/[^'\"]+", page) == pictures
    assert len(page) > 0.9 * len(own)  # curves, samples and tables are there
