"""scripts/benchmark_scaling.py: its model on paper, and its short form on two processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from scaling.paper import (  # noqa: E402
    Compute,
    Link,
    Place,
    Work,
    all_reduce,
    communication,
    fit_compute,
    fit_link,
    predict,
)

sys.path.remove(str(SCRIPTS))
LINK = Link(latency=0.001, bandwidth=1e6)


def test_a_ring_of_four_sends_a_quarter_six_times():
    assert all_reduce(4_000_000, workers=4, link=LINK) == pytest.approx(6 * (0.001 + 1.0))
    assert all_reduce(4_000_000, workers=1, link=LINK) == 0


def test_the_link_is_found_again_in_the_times_that_it_makes():
    contents = (4, 1000, 1_000_000)
    points = [(content, all_reduce(content, workers=4, link=LINK)) for content in contents]
    assert fit_link(points, workers=4) == pytest.approx(LINK)
    assert fit_link([(4, 0.02), (1_000_000, 0.01)], workers=4).bandwidth > 0
    assert fit_compute([(32, 0.5), (128, 1.25)]) == pytest.approx(Compute(0.25, 0.75 / 96))


def test_what_does_not_wait_is_as_many_times_as_fast():
    place = Place("here", 4, Compute(0.0, 0.01), Link(0.0, 1e30))
    row = predict(place, Work(1000, small=2), batch=128, batch_of_one=128)
    assert (row.speedup, row.waits) == pytest.approx((4.0, 0.0))
    slow = predict(place._replace(link=LINK), Work(1000, small=2), batch=128, batch_of_one=128)
    assert slow.waits == communication(Work(1000, small=2), workers=4, link=LINK)
    assert slow.step == pytest.approx(row.step + slow.waits)


@pytest.mark.slow
def test_two_processes_are_measured_and_a_step_has_three_reductions(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end -->\nafter\n")
    command = [sys.executable, SCRIPTS / "benchmark_scaling.py", "--short", "--page", page]
    ended = subprocess.run(
        [*command, tmp_path / "new"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "new" / "scaling.json").read_text())
    # All gradients at once, of 5,852,170 parameters; sum and count of the metrics.
    assert (results["gradient_bytes"], results["collectives"]) == (4 * 5_852_170, 3)
    one, two = results["measured"]
    assert (one["workers"], two["workers"]) == (1, 2)
    assert min(one["step"], two["alone"], two["step"], two["paper_waits"]) > 0
    assert len(results["predicted"]) == 16
    tables = (tmp_path / "new" / "scaling.md").read_text()
    assert tables in ended.stdout
    assert page.read_text() == f"before\n<!-- measured -->\n{tables}<!-- end -->\nafter\n"
