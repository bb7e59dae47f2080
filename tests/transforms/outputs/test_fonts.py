"""Which font has a character is found on any machine, and a box is never taken for a glyph."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_font import write_font
from transforms.outputs import fonts
from transforms.outputs.fonts import ABSENT, Font, FontFile, Fonts, installed


@pytest.fixture(scope="module")
def kana(tmp_path_factory: pytest.TempPathFactory) -> FontFile:
    return FontFile(str(write_font(tmp_path_factory.mktemp("fonts") / "Kana.ttf", "りんごé ")))


def without_fontconfig(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)


def told(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    answer = subprocess.CompletedProcess((), 0, lines.encode())
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: answer)


def test_a_font_has_what_it_draws_otherwise_than_a_box(kana: FontFile) -> None:
    font = Font.open(kana, 14)
    assert font is not None
    assert [letter for letter in f"りんご漢a{ABSENT} " if font.has(letter)] == ["り", "ん", "ご", " "]


def test_pillows_own_font_comes_first_and_others_fill_its_gaps(kana: FontFile) -> None:
    found = Fonts(14, [kana])
    assert found.first_with("a") is found.default
    assert found.first_with("é") is found.first_with("り") is not found.default
    assert found.first_with("漢") is None
    assert Fonts(14, []).first_with("り") is None


def test_what_is_no_font_is_passed_over(tmp_path: Path, kana: FontFile) -> None:
    broken = tmp_path / "Arial.ttf"  # which would come first
    broken.write_bytes(b"\0\1\0\0 and no more")
    found = Fonts(14, [FontFile(str(broken)), FontFile(str(tmp_path / "gone.ttf")), kana])
    assert found.first_with("ん") is not None


def test_a_font_of_boxes_is_never_asked(tmp_path: Path) -> None:
    boxes = write_font(tmp_path / "LastResort-Regular.ttf", "り")
    assert Fonts(14, [FontFile(str(boxes))]).first_with("り") is None


def test_fontconfig_says_what_fonts_have(monkeypatch: pytest.MonkeyPatch) -> None:
    told(
        monkeypatch,
        "/f/A.ttf\t0\tRegular\t20-7e 3042\n/f/B.ttc\t2\tBold,Gras\t4e00-9fff\n/f/C.pfb\t0\tRegular\t20-7e\n"
        "/f/D.ttf\t65536\tThin\t20-7e\n/f/E.ttf\t0\tRegular\tno ranges\nhalf a line\n",
    )
    assert installed() == [
        FontFile("/f/A.ttf", 0, "Regular", ((0x20, 0x7E), (0x3042, 0x3042))),
        FontFile("/f/B.ttc", 2, "Bold,Gras", ((0x4E00, 0x9FFF),)),
        FontFile("/f/E.ttf", 0, "Regular"),
    ]
    first = installed()[0]
    assert [letter for letter in "\x1f ~\x7fあぃ" if first.may_have(letter)] == [" ", "~", "あ"]


@pytest.mark.parametrize(
    "error", [FileNotFoundError("fc-list"), subprocess.TimeoutExpired("fc-list", 1), PermissionError("fc-list")]
)
def test_without_fontconfig_folders_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (tmp_path / "deep").mkdir()
    write_font(tmp_path / "deep" / "Kana.ttf", "り")
    (tmp_path / "readme.txt").touch()
    monkeypatch.setattr(fonts, "FOLDERS", (str(tmp_path), str(tmp_path / "none")))
    without_fontconfig(monkeypatch, error)
    assert [Path(file.path).name for file in installed()] == ["Kana.ttf"]
    assert Fonts(14).first_with("り") is not None


def test_plain_fonts_come_before_bold_and_odd_ones() -> None:
    files = [
        FontFile("/f/NotoSansMono-Regular.ttf", 0, "Regular"),
        FontFile("/f/NotoSerif-Regular.ttf", 0, "Regular"),
        FontFile("/f/NotoSansJP-Bold.ttf", 0, "Bold"),
        FontFile("/f/NotoSansJP-Regular.ttf", 0, "Regular"),
        FontFile("/f/DejaVuSans.ttf", 0, "Book"),
        FontFile("/f/NotoColorEmoji.ttf", 0, "Regular"),
    ]
    names = [Path(file.path).stem for file in sorted(files, key=lambda file: file.order)]
    assert names[:3] == ["NotoColorEmoji", "DejaVuSans", "NotoSansJP-Regular"]
    assert names[-1] == "NotoSansJP-Bold"


def test_letters_are_not_drawn_by_a_font_for_emoji(tmp_path: Path, kana: FontFile) -> None:
    emoji = FontFile(str(write_font(tmp_path / "Color-Emoji.ttf", "🍎1り")))
    found = Fonts(14, [kana, emoji])
    apple = found.first_with("🍎", emoji=True)
    assert apple is not None
    assert found.first_with("1", emoji=True) is apple
    assert found.first_with("り") is not apple
    assert found.first_with("1") is found.default
