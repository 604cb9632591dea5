"""doctor --speed: what it measures, and what it says of it."""

import pytest

from keras_cifar.machine import onednn, pick_precision, precisions
from keras_cifar.train.speed import (
    Speed,
    Speeds,
    choices,
    format_table,
    in_a_process,
    verdicts,
)

WITH = Speed("float32", "on", 125.0, 72.0, 700.0)
WITHOUT = Speed("float32", "off", 92.0, 125.0, 690.0)
HALF = Speed("bfloat16", "on", 440.0, None, None)


def test_a_choice_that_is_the_fastest_is_confirmed():
    training, single = verdicts(Speeds([WITH, WITHOUT], chosen=("float32", "on"), served="on"))
    assert training == "train chooses float32, oneDNN on: nothing is faster here."
    assert single == (
        "Single images are answered 1.7 times as fast with oneDNN off: "
        "TF_ENABLE_ONEDNN_OPTS=0 keras-cifar serve"
    )


def test_a_choice_that_is_not_the_fastest_is_named_with_the_way_out():
    training, single = verdicts(
        Speeds([WITH, WITHOUT, HALF], chosen=("float32", "off"), served="off")
    )
    assert training == (
        "train chooses float32, oneDNN off, but bfloat16, oneDNN on is 4.8 times as fast here: "
        "TF_ENABLE_ONEDNN_OPTS=1 keras-cifar train --precision bfloat16"
    )
    assert single == "Single images are answered fastest with oneDNN off, as serve has it here."


def test_what_differs_by_no_more_than_two_measurements_do_is_the_same():
    near = Speed("float32", "off", 1.05 * WITH.training, 1.05 * WITH.one, WITH.many)
    training, single = verdicts(Speeds([WITH, near], chosen=("float32", "on"), served="on"))
    assert training == "train chooses float32, oneDNN on: nothing is faster here."
    assert single == "Single images are answered as fast with oneDNN as without."


def test_without_onednn_there_is_nothing_to_choose():
    _, single = verdicts(Speeds([WITHOUT, WITHOUT], chosen=("float32", "off"), served="off"))
    assert single == "TensorFlow has no oneDNN on this machine."


def test_the_table_has_a_row_a_choice():
    rows = format_table(
        Speeds([WITH, WITHOUT, HALF], chosen=("float32", "on"), served="on")
    ).splitlines()[2:5]
    assert [row.split() for row in rows] == [
        ["float32,", "oneDNN", "on", "125", "72", "700"],
        ["float32,", "oneDNN", "off", "92", "125", "690"],
        ["bfloat16,", "oneDNN", "on", "440"],
    ]


@pytest.mark.slow
def test_a_choice_is_measured_in_a_process_that_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text("raise ImportError('of the user')\n")
    found = in_a_process("float32", "0")
    assert (found.precision, found.onednn) == ("float32", "off")
    assert min(found.training, found.one, found.many) > 0


def test_what_is_chosen_is_among_what_is_measured():
    found = choices()
    assert {("float32", "1"), ("float32", "0")} <= set(found)
    assert {precision for precision, _ in found} == set(precisions())
    assert (pick_precision()[0], {"on": "1", "off": "0"}[onednn()[0]]) in found
