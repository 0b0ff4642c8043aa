from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from system.data.assemble import clip_maker
from system.data.clips import VideoFacts
from system.data.dataset import ensure_index
from system.data.index import Index, IndexWriter
from tests.small import tiny_recipe


def test_starts_of_many_slots_are_those_that_each_is_given(generated: Path, tmp_path: Path) -> None:
    """Of videos shorter than a clip and longer, stride-layered ones among them, over two epochs."""
    recipe = tiny_recipe(generated, "data.num_frames=2", "data.views=2")
    maker = clip_maker(recipe, ensure_index(recipe))
    writer = IndexWriter(str(tmp_path / "index.parquet"), "test")
    row = {name: value for name, value in asdict(maker.index.row(0)).items() if name not in ("video_id", "duration_s")}
    for number in range(40):
        writer.add({**row, "name": f"{number}", "num_frames": 1 + 3 * number, "layers": (0, 2, 3, 4)[number % 4]})
    writer.close()
    index = Index(str(tmp_path / "index.parquet"))
    spec, plan = replace(maker.spec, stride=4), replace(maker.plan, num_videos=40)
    other = replace(maker, index=index, plan=plan, spec=spec)
    facts = VideoFacts(index.numbers("num_frames"), index.numbers("layers"))
    starts = other.own_starts(7, 87, plan.videos(7, 87), facts)
    assert starts.tolist() == [other.choose(slot).start for slot in range(7, 87)]
