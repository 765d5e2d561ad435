"""Directories that are whole or not there, and locks that outlive no process."""

import errno
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headless import files
from headless.errors import HeadlessError
from headless.files import exclusive, json_lines, move_aside, new_directory, write_json

HOLD = """
import sys, time
from pathlib import Path
from headless.files import new_directory
with new_directory(Path(sys.argv[1]), option="--output", overwrite=True) as partial:
    (partial / "half").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def make(path: Path, text: str, **options) -> None:
    with new_directory(path, option="--output", **options) as partial:
        (partial / "file").write_text(text)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_is_there_when_the_block_ends_and_not_before(tmp_path):
    with new_directory(tmp_path / "out", option="--output") as partial:
        (partial / "file").write_text("new")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "new"


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    make(tmp_path / "out", "first")
    building = new_directory(tmp_path / "out", option="--output", overwrite=True)
    partial = building.__enter__()
    (partial / "file").write_text("second")
    with pytest.raises(RuntimeError):
        building.gen.throw(RuntimeError())
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "first"


@pytest.mark.parametrize(("old", "left"), [("keep", ["out", "out.old-1"]), ("remove", ["out"])])
def test_what_is_replaced_is_kept_or_removed(tmp_path, old, left):
    make(tmp_path / "out", "first")
    with pytest.raises(HeadlessError, match="exists: give another --output"):
        make(tmp_path / "out", "second")
    make(tmp_path / "out", "second", overwrite=True, old=old)
    assert names(tmp_path) == left
    assert (tmp_path / "out" / "file").read_text() == "second"


def test_what_another_made_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(HeadlessError, match="is no model, so it stays as it is"):
        make(
            tmp_path / "thesis",
            "new",
            overwrite=True,
            is_ours=lambda path: (path / "model.json").is_file(),
            kind="model",
        )
    assert names(tmp_path) == ["thesis"]


def test_two_writers_exclude_each_other_and_a_killed_one_leaves_nothing(tmp_path, holder):
    with pytest.raises(HeadlessError, match=f"written to by process {holder.pid} on "):
        make(tmp_path / "out", "mine", overwrite=True)
    holder.kill()
    holder.wait()
    make(tmp_path / "out", "mine", overwrite=True)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "mine"


def test_a_lock_of_another_host_holds_while_it_gives_signs_of_life(
    tmp_path, holder, monkeypatch, capsys
):
    lock = tmp_path / ".out.lock"
    text = lock.read_text()
    here = os.uname().nodename
    holder.kill()
    holder.wait()
    lock.write_text(text.replace(f"host={here}", "host=elsewhere").replace("60.0", "0.5"))
    monkeypatch.setattr(files, "LEASE_SECONDS", 0.5)
    with exclusive(tmp_path / "out"):  # silent for longer than a lease
        assert f"host={here}" in lock.read_text()
    assert (
        f"locked by process {holder.pid} on elsewhere" in capsys.readouterr().err
    )  # a wait is said


def test_a_process_of_this_container_is_seen(tmp_path, holder, monkeypatch):
    """There the name of a lock's host has the processes' namespace behind it."""
    lock, here = tmp_path / ".out.lock", os.uname().nodename
    namespace = f"{os.stat('/proc/self/ns/pid').st_ino:x}"
    text = lock.read_text().replace("60.0", "0.5")
    monkeypatch.setattr(files, "LEASE_SECONDS", 0.5)
    lock.write_text(text.replace(f"host={here}", f"host={here}?pidns-{namespace}"))
    with pytest.raises(HeadlessError, match=rf"by process {holder.pid} on {here}: wait"):
        make(tmp_path / "out", "mine", overwrite=True)


def test_a_killed_replacement_is_put_back(tmp_path):
    make(tmp_path / "out", "first")
    os.replace(tmp_path / "out", tmp_path / ".out.replaced")  # killed between two renames
    with pytest.raises(HeadlessError, match="exists"):
        make(tmp_path / "out", "second")
    assert (tmp_path / "out" / "file").read_text() == "first"


def test_a_place_without_the_right_to_write_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadlessError, match="cannot be written"):
        make(tmp_path / "file" / "out", "new")


def test_aside_is_the_first_free_name(tmp_path):
    for _ in range(2):
        (tmp_path / "out").mkdir()
        move_aside(tmp_path / "out")
    assert names(tmp_path) == ["out.old-1", "out.old-2"]


def test_a_writer_of_a_moment_is_waited_for(tmp_path):
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(tmp_path / "out"):
            held.set()
            enough.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(HeadlessError, match="written to by process"), exclusive(tmp_path / "out"):
        pass
    threading.Timer(0.2, enough.set).start()
    with exclusive(tmp_path / "out", patience=20.0):
        assert enough.is_set()
    thread.join()


def test_a_file_system_that_is_read_only_is_one_line(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HeadlessError, match="out cannot be written: Read-only file system"):
        make(tmp_path / "out", "new")


def test_a_place_without_a_name_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadlessError, match="exists"):
        make(Path("."), "new")
    assert names(tmp_path) == ["file"]


def test_a_link_is_filled_where_it_leads(tmp_path):
    """A place on another disk; by its own name and by the link's it is one place."""
    disk, link = tmp_path / "disk", tmp_path / "here" / "out"
    (disk / "out").mkdir(parents=True)
    link.parent.mkdir()
    link.symlink_to(disk / "out")
    make(link, "first")
    make(link, "second", overwrite=True)
    assert link.is_symlink()
    assert (disk / "out" / "file").read_text() == "second"
    assert names(disk) == ["out", "out.old-1"]
    with (
        exclusive(link),
        pytest.raises(HeadlessError, match="written to by process"),
        exclusive(disk / "out"),
    ):
        pass


def test_where_a_disk_is_mounted_nothing_can_be_renamed_to(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    with pytest.raises(HeadlessError, match="give a directory on it as --output"):
        make(tmp_path / "out", "new")
    assert names(tmp_path / "out") == []


def test_json_has_null_for_what_is_not_finite_however_deep(tmp_path):
    value = {"é": [1.5, math.nan, {"b": (-math.inf, None, "NaN")}], "n": 2**70, "t": True}
    plain = {"é": [1.5, None, {"b": [None, None, "NaN"]}], "n": 2**70, "t": True}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == plain
    first, second = json_lines([value, math.inf]).splitlines()
    assert json.loads(first) == plain
    assert second == "null"
