"""What is declared is what is exported, shown and documented; and Ray exports what we show of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import ray

from system.monitoring.alerts import ALERTS
from system.monitoring.export import Exporter
from system.monitoring.files import DOCS, made, with_tables
from system.monitoring.panels import ROWS, expressions
from system.monitoring.series import CODES, RAYS, SERIES, STAGES, names_in, unknown_names
from tests.conftest import REPOSITORY

EXPRESSIONS = [*expressions(), *(alert.expr for alert in ALERTS)]


def test_dashboard_and_alerts_read_what_somebody_exports() -> None:
    assert not unknown_names(EXPRESSIONS)


@pytest.mark.parametrize("expr", ["ray_tubelet_loss", 'rate(ray_tubelet_los{run=~"$run"}[5m])', "up == 0"])
def test_a_name_that_nobody_exports_is_found(expr: str) -> None:
    assert unknown_names([expr]) == (set() if expr == "ray_tubelet_loss" else names_in(expr))


def test_names_are_told_from_functions_labels_texts_and_words() -> None:
    expr = (
        'sum by (run) (rate(a_total{run=~"x(y)_z{w}", code="by"}[5m])) / on (run) group_left (stage) b offset 5m'
        " > 1e3 and c == bool 2 or avg_over_time(d[$__rate_interval]) unless e"
    )
    assert names_in(expr) == {"a_total", "b", "c", "d", "e"}


def test_every_series_is_shown_or_warns() -> None:
    read = {name for expr in EXPRESSIONS for name in names_in(expr)}
    # What is of use beside others, in a query of one's own.
    spare = {"ray_tubelet_rank_steps_total", "ray_tubelet_data_wait_ratio", "ray_tubelet_goodput_ratio"}
    spare |= {"ray_tubelet_slots", "ray_tubelet_checkpoint_step", "ray_tubelet_price_per_hour"}
    assert {series.exported for series in SERIES.values()} - read <= spare
    assert not set(RAYS) - read


def test_what_is_shown_of_rays_is_in_the_installed_ray() -> None:
    folder = Path(ray.__file__).parent
    told = (folder / "data/_internal/stats.py").read_text()
    told += (folder / "data/_internal/execution/interfaces/op_runtime_metrics.py").read_text()
    told += (folder / "dashboard/modules/reporter/reporter_agent.py").read_text()
    # Ray Data declares some as fields, under their bare names; what its C++ exports stands in no text.
    compiled = {"ray_object_store_used_memory"}
    for name in set(RAYS) - compiled:
        bare = name.removeprefix("ray_")
        assert f'"{bare}"' in told or re.search(rf"\b{bare.removeprefix('data_')}: \w+ = metric_field", told), name


def test_what_is_made_is_up_to_date() -> None:
    for name, text in made().items():
        assert (REPOSITORY / name).read_text() == text, "python -m jobs.monitoring"
    document = (REPOSITORY / DOCS).read_text()
    assert with_tables(document) == document, "python -m jobs.monitoring"


def test_an_exporter_refuses_what_is_not_declared() -> None:
    with pytest.raises(KeyError):
        Exporter(run="run").set("tubelet_unheard_of", 1.0)


def test_an_exporter_works_in_a_process_without_ray() -> None:
    exporter = Exporter(run="run")
    exporter.set("tubelet_step", 3)
    exporter.add("tubelet_stage_blocks", 2, stage=STAGES[0])
    exporter.add("tubelet_stage_blocks", 0, stage=STAGES[0])  # Ray refuses this one
    assert not ray.is_initialized()


def test_a_label_that_is_not_given_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="code"):
        Exporter(run="run").set("tubelet_decode_errors", 1.0)


def test_codes_are_those_that_errors_are_counted_by() -> None:
    told = (REPOSITORY / "system/errors.py").read_text()
    (line,) = re.findall(r"code: one word for counting: (.*)\.\n", told)
    assert tuple(re.findall(r"`(\w+)`", line)) == CODES


def test_the_dashboard_is_laid_out_without_overlaps_and_every_panel_has_its_queries() -> None:
    board = json.loads(made()["cluster/monitoring/grafana/dashboards/tubelet.json"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert sum(panel["type"] == "row" for panel in board["panels"]) == len(ROWS)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval", "__all"}
    assert used == variables
