"""Features of videos: what they are, parts and their resumption, and videos that cannot be read."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from system import storage
from system.core.views import Views
from system.data.columns import Batch, objects
from system.data.index import Index
from system.data.sources import build_index
from system.errors import DataError, ResumeError, StorageFault, SystemFault
from system.evaluate import feature_parts
from system.evaluate.encoders import encoder_digest, load_encoder
from system.evaluate.extract import Order, Rows, extract, local_rows, manifest_of
from system.evaluate.feature_parts import (
    PartPlan,
    missing_parts,
    open_folder,
    part_uri,
    plan_parts,
    read_manifest,
    read_views,
)
from system.evaluate.features import all_tokens, float_frames
from system.evaluate.frozen import Extraction, cells
from system.models.weight_files import our_metadata, write_weights
from system.train.judging import build_model
from system.train.warm_start import heads_of
from tests.small import tiny_recipe


@pytest.fixture(scope="module")
def work(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Extraction:
    """An encoder with random weights, and two clips of one square each."""
    recipe = tiny_recipe(generated)
    uri = str(tmp_path_factory.mktemp("weights") / "model.safetensors")
    write_weights(uri, build_model(recipe, torch.device("cpu")).state_dict(), our_metadata(heads_of(recipe.model)))
    return Extraction(recipe, uri, Views("dense", 2, 1))


@pytest.fixture(scope="module")
def rows(work: Extraction, index: Index) -> Rows:
    """The rows of `local_rows`, computed once."""
    made = list(local_rows(work, index.uri, np.arange(16)))
    table = {video: (batch, row) for batch in made for row, video in enumerate(batch["video_id"].tolist())}

    def given(_work: Extraction, _index_uri: str, ids: NDArray[np.int64]) -> Iterator[Batch]:
        for video in ids.tolist():
            batch, row = table[video]
            yield {name: values[row : row + 1] for name, values in batch.items()}

    return given


@pytest.fixture(scope="module")
def index(generated: Path) -> Index:
    (found,) = (generated / "synthetic").rglob("index.parquet")
    return Index(str(found))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_parts, "PART_VIDEOS", 6)


def order(work: Extraction, index: Index, out: Path, count: int = 16) -> Order:
    return Order(work, index, np.arange(count), ["x"] * count, str(out), "digest")


def table(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "parts").to_pylist()
    return rows


def test_each_video_is_a_row_once_in_order_with_what_the_index_says_of_it(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path
) -> None:
    manifest = extract(order(work, index, tmp_path), rows)
    found = table(tmp_path)
    assert [row["video_id"] for row in found] == list(range(16))
    assert [row["name"] for row in found] == [video.name for video in index]
    assert [row["uri"] for row in found] == [video.uri for video in index]
    assert {row["views"] for row in found} == {2}
    assert {row["error"] for row in found} == {None}
    assert manifest["complete"]
    assert (manifest["videos"], manifest["failed"], manifest["partly_read"]) == (16, 0, 0)
    assert len(list((tmp_path / "parts").iterdir())) == 3
    assert read_manifest(str(tmp_path)) == manifest


def test_an_embedding_is_the_mean_over_views_of_the_mean_over_normed_tokens(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path
) -> None:
    from tests.data.test_viewing import seen

    extract(order(work, index, tmp_path), rows)  # in forwards of several videos' views
    frames = seen(index, 5, spec=work.spec)["frames"][0]
    encoder, grid = load_encoder(work.recipe, work.weights), work.recipe.grid
    with torch.inference_mode():
        tokens = encoder(float_frames(frames), all_tokens(2, grid))
    embedding = table(tmp_path)[5]["embedding"]
    assert np.allclose(embedding, tokens.mean((0, 1)).numpy(), atol=1e-5)
    # Whoever leaves out the last norm gets other numbers: its tokens have no unit variance over the channels.
    assert torch.allclose(tokens.var(2, unbiased=False), torch.ones(2, grid.tokens), atol=1e-2)


def test_a_rerun_makes_only_the_parts_that_are_missing_and_the_same_bytes(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path
) -> None:
    asked: list[list[int]] = []

    def noted(work: Extraction, index_uri: str, ids: NDArray[np.int64]) -> Iterator[Batch]:
        asked.append(ids.tolist())
        return rows(work, index_uri, ids)

    wanted = order(work, index, tmp_path)
    first = extract(wanted, noted)
    path = Path(part_uri(str(tmp_path), 1))
    before = path.read_bytes()
    path.unlink()
    assert missing_parts(str(tmp_path), plan_parts(wanted.ids, work)) == [1]
    second = extract(wanted, noted)
    third = extract(wanted, noted)
    assert asked == [list(range(16)), list(range(6, 12))]
    assert path.read_bytes() == before
    assert first == second == third


def test_what_was_written_before_an_interruption_is_kept(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path
) -> None:
    def cut_off(work: Extraction, index_uri: str, ids: NDArray[np.int64]) -> Iterator[Batch]:
        yield from rows(work, index_uri, ids[:7])
        raise KeyboardInterrupt

    wanted = order(work, index, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        extract(wanted, cut_off)
    assert read_manifest(str(tmp_path))["complete"] is False  # type: ignore[index]
    assert missing_parts(str(tmp_path), plan_parts(wanted.ids, work)) == [1, 2]
    assert extract(wanted, rows)["videos"] == 16


def test_rows_in_any_order_fill_the_same_parts(work: Extraction, index: Index, rows: Rows, tmp_path: Path) -> None:
    def backwards(work: Extraction, index_uri: str, ids: NDArray[np.int64]) -> Iterator[Batch]:
        return rows(work, index_uri, ids[::-1])

    extract(order(work, index, tmp_path / "a"), rows)
    extract(order(work, index, tmp_path / "b"), backwards)
    a, b = table(tmp_path / "a"), table(tmp_path / "b")
    assert [row["video_id"] for row in b] == list(range(16))
    assert np.allclose([row["embedding"] for row in a], [row["embedding"] for row in b], atol=1e-5)


@pytest.mark.parametrize(("come", "parts"), [(15, 1), (12, 1), (7, 2), (0, 3)])
def test_videos_that_do_not_come_back_are_an_error(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path, come: int, parts: int
) -> None:
    def fewer(work: Extraction, index_uri: str, ids: NDArray[np.int64]) -> Iterator[Batch]:
        return rows(work, index_uri, ids[:come])

    with pytest.raises(SystemFault, match=f"{parts} parts .* miss videos"):
        extract(order(work, index, tmp_path), fewer)


@pytest.mark.parametrize("change", ["views", "weights", "labels", "decoder"])
def test_a_folder_of_other_features_is_refused_with_both_values(
    work: Extraction, index: Index, tmp_path: Path, change: str
) -> None:
    wanted = order(work, index, tmp_path)
    open_folder(wanted.out, manifest_of(wanted))
    with_decord = work.recipe.model_copy(update={"data": work.recipe.data.model_copy(update={"decoder": "decord"})})
    other = {
        "views": replace(wanted, work=replace(work, views=Views("segments", 2, 1))),
        "weights": replace(wanted, weights="others"),
        "labels": replace(wanted, labels=["y"] * 16),
        "decoder": replace(wanted, work=replace(work, recipe=with_decord)),
    }[change]
    with pytest.raises(ResumeError, match="holds features of something else") as refused:
        extract(other, lambda *_: iter(()))
    away = replace(other, out=str(tmp_path / "away"))
    open_folder(away.out, manifest_of(away))
    with pytest.raises(ResumeError, match="holds features of something else"):
        open_folder(away.out, manifest_of(wanted))
    if change == "views":
        assert "views: there 'dense 2x1', now 'segments 2x1'" in str(refused.value)


def test_a_folder_of_before_the_decoder_was_said_has_it_in_its_recipe(
    work: Extraction, index: Index, tmp_path: Path
) -> None:
    data = work.recipe.data.model_copy(update={"decoder": "decord"})
    wanted = order(replace(work, recipe=work.recipe.model_copy(update={"data": data})), index, tmp_path)
    manifest = manifest_of(wanted)
    del manifest["identity"]["decoder"]
    open_folder(wanted.out, manifest)
    open_folder(wanted.out, manifest_of(wanted))
    with pytest.raises(ResumeError, match="decoder: there 'decord', now None"):
        open_folder(wanted.out, manifest_of(order(work, index, tmp_path)))


def test_a_video_that_cannot_be_read_is_a_row_without_an_embedding_and_counted(
    work: Extraction, generated: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, path in enumerate(sorted(generated.rglob("*.mp4"))[:4]):
        shutil.copy(path, folder / f"{number}.mp4")
    build_index(str(folder), str(folder / "index.parquet"))
    index = Index(str(folder / "index.parquet"))
    (folder / "2.mp4").unlink()
    manifest = extract(order(work, index, tmp_path / "out", 4), local_rows)
    rows = table(tmp_path / "out")
    assert [row["views"] for row in rows] == [2, 2, 0, 2]
    assert rows[2]["embedding"] is None
    assert str(rows[2]["error"]).startswith("storage: ")
    assert all(row["embedding"] is not None and row["error"] is None for row in rows if row["video_id"] != 2)
    assert (manifest["failed"], manifest["reasons"]) == (1, {"storage": 1})
    assert manifest["examples"][0]["name"] == "2.mp4"


def test_a_part_of_which_nothing_is_there_says_nothing_about_its_videos(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path
) -> None:
    def gone(work: Extraction, index_uri: str, ids: NDArray[np.int64]) -> Iterator[Batch]:
        for batch in rows(work, index_uri, ids):
            yield {**batch, "error": objects(["storage: no such file"]), "seen": np.zeros_like(batch["seen"])}

    with pytest.raises(StorageFault, match="all 6 videos of a part are gone; is the storage mounted here"):
        extract(order(work, index, tmp_path), gone)
    assert len(missing_parts(str(tmp_path), plan_parts(np.arange(16), work))) == 3


def test_storage_that_is_gone_is_no_verdict_about_videos(work: Extraction, generated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, path in enumerate(sorted(generated.rglob("*.mp4"))[:4]):
        shutil.copy(path, folder / f"{number}.mp4")
    build_index(str(folder), str(tmp_path / "index.parquet"))
    index = Index(str(tmp_path / "index.parquet"))
    shutil.rmtree(folder)
    with pytest.raises(StorageFault, match="all 4 videos of a part are gone; is the storage mounted here"):
        extract(order(work, index, tmp_path / "out", 4), local_rows)


def test_kept_views_come_back_with_their_tokens(work: Extraction, index: Index, tmp_path: Path) -> None:
    kept = replace(work, keep_views=True, tokens_side=1, pool="slots")
    extract(order(kept, index, tmp_path), local_rows)
    found = read_views(str(tmp_path), plan_parts(np.arange(16), kept), kept)
    slots, width = kept.tokens_shape
    assert (slots, width) == (2, 48)
    assert found.features.shape == (16, 2, slots * width)
    assert found.seen.all()
    # One cell a slot is what pooling by slots gives, in half precision.
    assert np.allclose(found.tokens.reshape(16, 2, -1), found.features, atol=2e-3)
    means = found.features.mean(1)
    assert np.allclose([row["embedding"] for row in table(tmp_path)], means, atol=1e-5)


def test_cells_are_means_over_neighbouring_places(work: Extraction) -> None:
    grid = work.recipe.grid
    assert (grid.slots, grid.rows, grid.cols) == (2, 2, 2)
    tokens = torch.arange(8.0).reshape(1, 8, 1)
    assert cells(tokens, grid, 1).flatten().tolist() == [1.5, 5.5]
    assert cells(tokens, grid, 2).flatten().tolist() == list(range(8))
    with pytest.raises(ValueError, match="3 does not divide"):
        cells(tokens, grid, 3)


def test_parts_that_hold_other_videos_are_found_out(work: Extraction, index: Index, rows: Rows, tmp_path: Path) -> None:
    wanted = order(work, index, tmp_path)
    extract(wanted, rows)
    shutil.copy(part_uri(str(tmp_path), 0), part_uri(str(tmp_path), 1))
    Path(tmp_path / "manifest.json").write_text(
        json.dumps({**read_manifest(str(tmp_path)), "complete": False})  # type: ignore[dict-item]
    )
    Path(part_uri(str(tmp_path), 2)).unlink()
    with pytest.raises(DataError, match="not each of 16 once"):
        extract(wanted, rows)


def test_the_digest_is_that_of_the_weights_and_not_of_their_file(work: Extraction, tmp_path: Path) -> None:
    encoder = load_encoder(work.recipe, work.weights)
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    write_weights(str(tmp_path / "only.safetensors"), tensors, {"format": "tubelet"})
    again = load_encoder(work.recipe, str(tmp_path / "only.safetensors"))
    assert encoder_digest(again) == encoder_digest(encoder)
    with torch.no_grad():
        again.norm.get_parameter("bias")[0] += 1
    assert encoder_digest(again) != encoder_digest(encoder)


def test_a_part_is_the_table_that_readers_of_parquet_expect(
    work: Extraction, index: Index, rows: Rows, tmp_path: Path
) -> None:
    extract(order(work, index, tmp_path), rows)
    schema = pq.read_table(io.BytesIO(storage.read(part_uri(str(tmp_path), 0)))).schema
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float>[48]"
    assert schema.names == ["video_id", "uri", "name", "label", "views", "embedding", "error"]


def test_videos_lie_in_the_part_that_their_place_says() -> None:
    plan = PartPlan(np.array([3, 5, 8, 13, 21]), 2)
    assert plan.count == 3
    assert [plan.part_of(video) for video in (3, 5, 8, 13, 21)] == [0, 0, 1, 1, 2]
    assert plan.videos(2).tolist() == [21]
