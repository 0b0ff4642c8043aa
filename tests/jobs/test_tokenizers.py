from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jobs import import_tokenizer, train_tokenizer
from system.models.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from tests.conftest import RECIPES, TINY
from tests.jobs.test_arguments import code_of

SMOKE = str(RECIPES / "smoke.yaml")
Output = pytest.CaptureFixture[str]


def test_a_tokenizer_is_fitted_to_the_videos_of_a_recipe(generated: Path, tmp_path: Path, capsys: Output) -> None:
    out = str(tmp_path / "own.safetensors")
    given = ["--recipe", SMOKE, *TINY, f"run.storage={generated}", "--out", out, "--codes", "24", "--steps", "6"]
    assert code_of(train_tokenizer.main, *given, "--factor", "8", "--width", "16") == 0
    told = capsys.readouterr().out
    assert "24 codes of 8 px, 6 steps" in told
    assert "perplexity" in told
    assert out in told
    tokenizer = load_tokenizer(out)
    assert (tokenizer.num_codes, tokenizer.factor) == (24, 8)
    assert tokenizer.codes(torch.rand(1, 3, 32, 32), 4, 4).shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--out", "own.pth"], "--out ends in .safetensors, got own.pth"),
        (["--out", "own.safetensors", "--codes", "9000"], "a book of 2 to 8192 codes"),
        (["--out", "own.safetensors", "--steps", "0"], "--steps, --images and --width are 2 at least"),
        (["--out", "own.safetensors", "--factor", "4"], "--factor"),
        ([], "--out"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(given: list[str], says: str, capsys: Output) -> None:
    assert code_of(train_tokenizer.main, "--recipe", SMOKE, *given) == 2
    assert says in capsys.readouterr().err


def test_a_vqgan_is_imported_once(tmp_path: Path, capsys: Output) -> None:
    config = TokenizerConfig(kind="vqgan", num_codes=40, factor=16, width=32, latent_width=32, code_width=24)
    save_file(dict(Tokenizer(config).state_dict()), tmp_path / "vqgan.safetensors")
    given = ["--weights", str(tmp_path / "vqgan.safetensors"), "--out", str(tmp_path / "ours.safetensors")]
    assert code_of(import_tokenizer.main, *given) == 0
    told = capsys.readouterr().out
    assert "vqgan: 40 codes of 16 px" in told
    assert "14 x 14 codes is 224 x 224 px and costs" in told
    assert load_tokenizer(str(tmp_path / "ours.safetensors")).config == config
    assert code_of(import_tokenizer.main, *given) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_is_no_vqgan_is_one_sentence(tmp_path: Path, capsys: Output) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    given = ["--weights", str(tmp_path / "x.safetensors"), "--out", str(tmp_path / "ours.safetensors")]
    assert code_of(import_tokenizer.main, *given) == 2
    error = capsys.readouterr().err
    assert "x.safetensors is no VQGAN" in error
    assert error.count("\n") == 1
