"""The contents of a folder: every file is read, refused with a reason, or counted as skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.readers.folder import (
    FolderContents,
    describe_skipped,
    describe_unread,
    list_folder,
)

REMEDY = "put the file itself there, or remove the link"


def listed(folder: Path) -> FolderContents:
    return list_folder(folder, {".txt", ".md"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with a text; there is a secret beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("Nobody may read this.")
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a.txt").write_text("Some text.")
    return path


def names(contents: FolderContents) -> list[str]:
    return [file.relative for file in contents.files]


def test_files_come_by_path_without_hidden_ones(folder: Path) -> None:
    for name in ("b/c.MD", "b/.c.txt", ".b/c.txt", "b.txt", ".a.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    contents = listed(folder)
    assert names(contents) == ["a.txt", "b/c.MD", "b.txt"]
    assert contents.files[1].path == folder / "b" / "c.MD"
    assert (contents.refused, contents.skipped) == ([], [])


def test_files_of_other_formats_are_skipped_and_counted_by_ending(folder: Path) -> None:
    for name in ("d/1.PNG", "2.png", "3.png", "4.png", "5.docx", "README", ".hidden.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    contents = listed(folder)
    assert names(contents) == ["a.txt"]
    assert describe_skipped(contents.skipped) == (
        "6 files of other formats: 4 .png (2.png, 3.png, 4.png, …), 1 without an ending (README), "
        "1 .docx (5.docx)"
    )


def test_many_endings_are_summed_up() -> None:
    skipped = [f"a.{letter}" for letter in "abcdefghijkl"]
    described = describe_skipped(skipped)
    assert described.startswith("12 files of other formats: 1 .a (a.a), 1 .b")
    assert described.endswith("1 .j (a.j), 2 other endings")


def test_links_within_the_folder_are_files_like_any_other(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "b.md").write_text("text")
    (folder / "again.txt").symlink_to("a.txt")
    (folder / "sub" / "up.txt").symlink_to(folder / "a.txt")
    # As a volume of Kubernetes has its files.
    (folder / "..data").mkdir()
    (folder / "..data" / "mounted.md").write_text("text")
    (folder / "mounted.md").symlink_to("..data/mounted.md")
    # The files of these folders are listed where they are, and once.
    (folder / "sub-again").symlink_to("sub")
    (folder / "sub" / "loop").symlink_to("..")
    contents = listed(folder)
    assert names(contents) == ["a.txt", "again.txt", "mounted.md", "sub/b.md", "sub/up.txt"]
    assert (contents.refused, contents.skipped) == ([], [])


def test_links_that_lead_out_of_the_folder_are_refused_by_name(folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / "direct.txt").symlink_to(outside / "secret.txt")
    (folder / "relative.md").symlink_to("../outside/secret.txt")
    (folder / "chain.txt").symlink_to("direct.txt")
    (folder / "out").symlink_to(outside)
    # A folder whose name begins like that of this one.
    (folder.parent / "folder2").mkdir()
    (folder / "next").symlink_to("../folder2")
    contents = listed(folder)
    assert names(contents) == ["a.txt"]
    secret = f"a link that leads out of the folder, to {outside}/secret.txt; {REMEDY}"
    assert {one.path.name: one.reason for one in contents.refused} == {
        "chain.txt": secret,
        "direct.txt": secret,
        "next": f"a link that leads out of the folder, to {folder}2; {REMEDY}",
        "out": f"a link that leads out of the folder, to {outside}; {REMEDY}",
        "relative.md": secret,
    }


def test_links_that_lead_nowhere_are_refused_by_name(folder: Path) -> None:
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "gone.txt").symlink_to("nowhere.txt")
    # No document could have been there.
    (folder / "gone.png").symlink_to("nowhere.png")
    contents = listed(folder)
    assert {one.path.name: one.reason for one in contents.refused} == {
        "gone.txt": "a link to nowhere.txt, which cannot be read: No such file or directory; "
        + REMEDY,
        "loop.md": f"a link that leads back to itself; {REMEDY}",
    }


def test_a_folder_may_be_named_by_a_link_to_it(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    (folder / "again.txt").symlink_to(folder / "a.txt")
    contents = listed(link)
    assert contents.files[0].path == link / "a.txt"
    assert (names(contents), contents.refused) == (["a.txt", "again.txt"], [])


def test_a_folder_without_readable_files_says_what_it_has(folder: Path) -> None:
    (folder / "a.txt").unlink()
    (folder / "a.png").touch()
    for number in range(7):
        (folder / f"{number}.txt").symlink_to("../outside/secret.txt")
    lines = describe_unread(listed(folder)).splitlines()
    assert lines[:2] == ["", "  it has 1 file of other formats: 1 .png (a.png)"]
    assert lines[2].startswith(f"  {folder}/0.txt: a link that leads out of the folder")
    assert (len(lines), lines[-1]) == (8, "  and 2 more")
