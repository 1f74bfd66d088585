"""What is sent away: absolute paths and the host's name are cut, everything else is left alone."""

import pytest

from harness.outgoing import shorten, without_machine


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/ann/data/my.csv", ".../my.csv"),
        ("/home/ann lee/my data.csv", ".../my data.csv"),
        ("~/runs/a", ".../a"),
        (r"C:\Users\ann\my.csv", ".../my.csv"),
        (
            "[Errno 2] No such file or directory: '/home/ann lee/x/file.bin'",
            "[Errno 2] No such file or directory: '.../file.bin'",
        ),
        ("/home/ann/t.csv: line 3, column a: empty", ".../t.csv: line 3, column a: empty"),
        ("loaded /a/b/c, then (/d/e/f)", "loaded .../c, then (.../f)"),
        ("classifier data=/home/ann/my.csv", "classifier data=.../my.csv"),
        ("see file:///home/ann/page.html", "see .../page.html"),
        ("data:/home/ann/my.csv", "data:.../my.csv"),
        ('File "/home/ann/mine.py", line 4', 'File ".../mine.py", line 4'),
    ],
)
def test_of_an_absolute_path_its_last_part_is_left(text, left):
    assert shorten(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/c.csv",
        "data/my.csv",
        "../up/my.csv",
        "ALE/Pong-v5",
        "https://example.org/a/b",
        "3 / 4 and 5/6/7",
        "steps/s",
        "x -> y",
        "mytrain:good",
        "data:image/png;base64,/9j/4AAQ/SkZ/Jg==",
    ],
)
def test_nothing_else_changes(text):
    assert shorten(text) == text


def test_this_host_has_no_name_in_sentences(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "annsbox")
    assert shorten("the worker on annsbox died; annsboxes live") == "the worker on this host died; annsboxes live"
    assert shorten("annsbox") == "annsbox"  # a name of something, such as a project
    monkeypatch.setattr("socket.gethostname", lambda: "a")
    assert shorten("a worker died") == "a worker died"


def test_texts_in_objects_are_found_and_numbers_kept():
    raw = {"a": ["/x/y/z", ("/x/w", 1.5)], "bdata": "/9j/4AA", "texts": ["/to/be"], "n": None, "/k/k": {"deep": "/u/v"}}
    left = {
        "a": [".../z", (".../w", 1.5)],
        "bdata": "/9j/4AA",
        "texts": ["/to/be"],
        "n": None,
        "/k/k": {"deep": ".../v"},
    }
    assert without_machine(raw) == left
