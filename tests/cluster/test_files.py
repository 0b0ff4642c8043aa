"""No file of cluster/ holds a secret, and the image is made of locked packages and runs without root."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, FILES, ROOT, instructions

# What keys and tokens look like: prefixes of well-known kinds, values given to names of secrets, long random strings.
# Paths of parameters are long as well, hence no slash, dash or dot in the last one.
SECRETS = re.compile(
    r"(?:AKIA|ASIA|GOOG1E)[0-9A-Z]{16}"
    r"|-----BEGIN"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-|eyJ)[A-Za-z0-9_-]{16,}"
    r"|(?i:password|passwd|secret_access_key|session_token|auth_token|api_key)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{8,}"
    r"|\b(?=[A-Za-z0-9+]*[0-9])(?=[A-Za-z0-9+]*[A-Za-z])[A-Za-z0-9+]{32,}"
)
# Locks are made of long random strings: the hashes of packages.
TOLD = [*(path for path in FILES if path.suffix != ".lock"), ROOT / "docs/clusters.md"]


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_files_hold_no_key_or_token(path: Path) -> None:
    assert SECRETS.search(path.read_text()) is None


@pytest.mark.parametrize(
    "secret",
    [
        "AKIA" + "Q" * 16,
        "GOOG1E" + "Q" * 55,
        "-----BEGIN " + "OPENSSH PRIVATE KEY",
        "hf_" + "a1" * 16,
        "auth_token: " + "c0ffee" * 4,
        "AWS_SECRET_ACCESS_KEY=" + "wJalrXUt/" * 4,
        "0123456789abcdef" * 4,
    ],
)
def test_keys_and_tokens_are_recognised(secret: str) -> None:
    assert SECRETS.search(f"  - value: x\n    {secret}\n")


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs/clusters.md"], ids=lambda path: path.name)
def test_files_are_ascii(path: Path) -> None:
    assert path.read_bytes().isascii()


def test_image_runs_as_a_user_without_root_given_by_number() -> None:
    name, user = instructions()[-1]
    assert name == "USER"
    assert int(user.split(":")[0]) > 0


def test_image_lets_python_write_byte_code_and_compiles_what_it_installs() -> None:
    # A comment may name it; no instruction may.
    assert not any("PYTHONDONTWRITEBYTECODE" in arguments for _, arguments in instructions())
    installs = [arguments for _, arguments in instructions() if "uv pip" in arguments]
    assert len(installs) == 1
    assert "--compile-bytecode" in installs[0]


def test_image_installs_the_lock_with_hashes_by_the_makefiles_uv() -> None:
    version = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert version and ("ARG", f"UV_VERSION={version[1]}") in instructions()
    installs = [arguments for _, arguments in instructions() if "uv pip" in arguments]
    assert all("--require-hashes" in arguments for arguments in installs)


def test_the_lock_has_what_ray_up_needs_on_google_cloud() -> None:
    names = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {"google-api-python-client", "google-auth-httplib2"} <= set(names)


def test_image_takes_what_the_ignore_file_lets_through() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {rest.split()[0] for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")}
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert all((ROOT / each).exists() for each in copied)


def test_image_leaves_its_code_and_packages_to_root_and_becomes_the_user_last() -> None:
    names = [name for name, _ in instructions()]
    assert names.count("USER") == 1
    assert not any("--chown" in rest or "chmod" in rest for _, rest in instructions())
    assert not any(re.search(r"\b(sudo|setuid|NOPASSWD)\b", rest) for _, rest in instructions())


def test_nothing_is_reported_to_anybody() -> None:
    assert any(name == "ENV" and "RAY_USAGE_STATS_ENABLED=0" in rest for name, rest in instructions())
    assert "--disable-usage-stats" in (CLUSTER / "slurm/pretrain.sbatch").read_text()


def test_image_says_its_home_since_ray_up_reads_it_there() -> None:
    assert any(name == "ENV" and "HOME=/home/ray" in rest for name, rest in instructions())
