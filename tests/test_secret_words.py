"""What looks like a secret is refused where it would be stored or shown, and never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.errors import DataError, RecipeError
from system.recipe import load_recipe, recipe_from
from system.secret_words import kind_of, refuse_secrets, without_user
from system.storage.objects import endpoint
from tests.conftest import RECIPES

# Made up of parts, so that no scanner takes this file for one that holds secrets.
VALUE = "wJalrXUtnFEMI" + "K7MDENGbPx"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://AKID:{VALUE}@bucket/videos",
        f"S3://{VALUE}@bucket",
        f"https://user:{VALUE}@store:9000/x",
        f"https://bucket.example/x.pth?X-Amz-Algorithm=AWS4&X-Amz-Signature={VALUE}",
        f"https://account.example/x?sv=1&sig={VALUE}",
        "AKIA" + "Q" * 16,
        "GOOG1E" + "Q" * 55,
        "hf_" + VALUE,
        "run-" + "ghp_" + VALUE,
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    ],
)
def test_a_secret_is_refused_by_its_key_and_not_repeated(text: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.uri") as error:
        refuse_secrets({"run": {"name": "a"}, "data": {"uri": text}}, "mine.yaml")
    assert VALUE not in str(error.value)
    assert "Q" * 8 not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/folder@2024/a.mp4",
        "file:///data/me@home/x",
        "/data/me@home/x",
        "synthetic://moving?videos=16&frames=16&height=48&width=48",
        "d41d8cd98f00b204e9800998ecf8427e",  # a hash of a commit or of a file may be in a name
        "task-1e4-risk-ablation-of-the-decoder",
        "s3://bucket/weights/raft_small_C_T_V1-ad48884c.pth",
    ],
)
def test_what_is_no_secret_is_let_through(text: str) -> None:
    assert kind_of(text) is None


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_recipe_of_ours_is_taken_for_one_that_holds_a_secret(path: Path) -> None:
    load_recipe(path)


def test_a_recipe_with_a_secret_is_refused_before_anything_else_is_said_of_it() -> None:
    uri = f"s3://AKID:{VALUE}@bucket/videos"
    with pytest.raises(RecipeError, match=r"data\.uri looks like") as error:
        load_recipe(RECIPES / "smoke.yaml", [f"data.uri={uri}", "data.size=no-number"])
    assert VALUE not in str(error.value)
    with pytest.raises(RecipeError, match="resources") as error:
        recipe_from({"resources": {"worker_resources": [uri]}}, "mine.yaml")
    assert VALUE not in str(error.value)


def test_storage_refuses_a_uri_with_a_key_without_repeating_it() -> None:
    from system import storage

    with pytest.raises(DataError, match="before an @") as error:
        storage.read(f"s3://AKID:{VALUE}@bucket/video.mp4")
    assert VALUE not in str(error.value)
    assert "s3://bucket/video.mp4" in str(error.value)


def test_messages_name_the_endpoint_without_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://me:{VALUE}@store:9000")
    assert endpoint() == "https://store:9000"
    assert without_user(f"no answer from https://me:{VALUE}@store:9000, or s3://b/me@home") == (
        "no answer from https://store:9000, or s3://b/me@home"
    )
