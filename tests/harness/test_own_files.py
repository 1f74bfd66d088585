"""Files and folders of the user's own that are hostile or beside the point: one sentence, no hang, no traceback."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from harness.data import DataError, card
from harness.data.own import opened


def flowers(folder, names=("rose", "tulip"), count=6):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("L", (5, 4), 10 * i + label).save(folder / name / f"{i}.png")
    return folder


def png_of(width, height):
    """The first bytes of a PNG of that size; its pixels are a lie."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


# What stands beside data


@pytest.mark.parametrize(
    "beside",
    ["LICENSE.txt", "README.txt", "notes.txt", ".hidden.txt", "Thumbs.db", ".DS_Store", ".ipynb_checkpoints/0.png",
     "__MACOSX/0.png", "rose/.0.png", "rose/._1.png", "rose/LICENSE.txt", "rose/Thumbs.db"],
)  # fmt: skip
def test_bystanders_do_not_decide_what_a_folder_is(tmp_path, beside):
    (flowers(tmp_path) / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_bytes(b"All pictures are licensed under a licence. " * 20)
    card = opened(str(tmp_path)).card
    assert (card.kind, card.classes, sum(card.rows.values())) == ("images", 2, 12)


@pytest.mark.parametrize(
    ("stray", "sentence"),
    [
        ("0.png", r"0\.png: an image next to the folders of the classes \(1 in all\); move it into the folder of its"),
        ("scan.tif", r"scan\.tif: an image next to the folders of the classes \(1 in all\)"),
        ("rose/more/0.png", r"rose/more: a folder of images inside the folder of a class; put all images of a"),
        ("train/rose/0.png", r"train/rose: a folder of images inside the folder of a class; .*; the splits are made"),
    ],
)
def test_images_outside_of_the_classes_folders_are_not_left_out_in_silence(tmp_path, stray, sentence):
    (flowers(tmp_path) / stray).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (5, 4), 99).save(tmp_path / stray)
    with pytest.raises(DataError, match=sentence):
        opened(str(tmp_path))


@pytest.mark.parametrize("beside", ["LICENSE.txt", "readme.txt", ".draft.txt", "drafts/0.txt", ".git/config"])
def test_bystanders_are_no_documents(tmp_path, beside):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(str(i) * 40)
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("x" * 400)
    card = opened(str(tmp_path)).card
    assert (card.kind, card.classes) == ("tokens", 10)


def test_two_folders_of_one_name_are_named(tmp_path):
    flowers(tmp_path, ("caf\u00e9", "cafe\u0301"))
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes both names for one")
    with pytest.raises(DataError, match="two folders are called 'caf\u00e9', spelled differently; make them one"):
        opened(str(tmp_path))


def test_pictures_that_are_not_read_are_named(tmp_path):
    flowers(tmp_path)
    Image.new("L", (5, 4)).save(tmp_path / "rose" / "7.gif")
    with pytest.raises(DataError, match=r"rose/7\.gif: images of this kind are not read; convert it to one of"):
        opened(str(tmp_path))


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])  # Pillow warns, raises, raises
def test_a_bomb_is_named(tmp_path, side):
    flowers(tmp_path)
    (tmp_path / "rose" / "7.png").write_bytes(png_of(side, side))
    with pytest.raises(DataError, match=r"rose/7\.png: more than [\d,]+ pixels; scale it down"):
        opened(str(tmp_path))


# Lines of JSON


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "line 6: not JSON that can be read: too many brackets"),
        ('{"source": ' + "1" * 5000 + ', "target": "b"}', "line 6: not JSON that can be read: "),
        ('{"source": "a \\ud83d", "target": "b"}', r"line 6: \\ud83d is half of a character, its other"),
        ('{"source": "a", "target": "\\udc00"}', r"line 6: \\udc00 is half of a character"),
    ],
)
def test_broken_json_is_named(tmp_path, line, message):
    pairs = [json.dumps({"source": f"a{i}", "target": "b"}) for i in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join([*pairs, line]))
    with pytest.raises(DataError, match=r"a\.jsonl, " + message):
        opened(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path, end):
    pairs = [json.dumps({"source": f"a{i} \U0001f600", "target": "b"}) for i in range(10)]
    (tmp_path / "a.jsonl").write_bytes(end.join(pairs).encode())
    assert sum(opened(str(tmp_path / "a.jsonl")).card.rows.values()) == 10


# What is no file


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".txt", ".jsonl"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, suffix):
    pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"zero{suffix}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(DataError, match=f"{suffix}: a pipe or a device, which may never end; save what it gives"):
            opened(str(path))


def test_pipes_inside_of_folders_are_passed_over(tmp_path):
    os.mkfifo(flowers(tmp_path) / "rose" / "7.png")
    os.mkfifo(tmp_path / "a.txt")
    assert sum(opened(str(tmp_path)).card.rows.values()) == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x/" * 2500, "5,000 characters"),
        ("x" * 5000, "no data set is called"),
        ("a/\0.csv", "no file or folder|cannot be"),
        ("\0", "no data set is called"),
    ],
)
def test_no_path_is_too_strange(name, message):
    with pytest.raises(DataError, match=message) as error:
        card(name)
    assert name[:300] not in str(error.value) or len(name) < 300


def test_a_folder_here_is_pointed_to(tmp_path, monkeypatch):
    monkeypatch.chdir(flowers(tmp_path))
    with pytest.raises(
        DataError, match=r"no data set is called 'rose'; for the file or folder of that name write \./rose;"
    ):
        card("rose")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("a,b\n")

    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(DataError, match=r"a\.csv: cannot be read: Permission denied"):
        opened(str(tmp_path / "a.csv"))


def test_the_plan_names_them_and_exits_with_2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "quote.csv").write_text('size,target\n1,"2\n' * 30)
    (tmp_path / "words.csv").write_text("a,b,target\n" + "".join(f"x,{i},\n" for i in range(9)))
    expected = {"pipe.csv": "a pipe or a device", "quote.csv": "a closing quote", "words.csv": "2 obstacles"}
    for name, message in expected.items():
        (tmp_path / "e.yaml").write_text(f"name: e\ntrials:\n  - {{learner: classifier, data: {name}}}\n")
        result = CliRunner().invoke(app, ["plan", "e.yaml"])
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
        assert "Traceback" not in result.output
