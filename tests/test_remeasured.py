"""Bundles measured again from their weights: honest ones give what they claim, and no other weights or draws do."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundle import (
    BASE,
    POSITIVE,
    Members,
    altered,
    in_json,
    in_table,
    make_bundle,
    make_run,
    members_of,
    retell,
    retold,
    told,
)
from safetensors.numpy import load, save, save_file

from unlearnbench.leaderboard.bundles.writing import write_members
from unlearnbench.leaderboard.verification import Verification, verify_bundle
from unlearnbench.policies.decoder import Decoder
from unlearnbench.records import Result
from unlearnbench.splits import Split, find_split

WEIGHTS = "seeds/1/weights/model.safetensors"
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def solves(made_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of one seed whose policy solves most unlearnable items."""
    place = tmp_path_factory.mktemp("solves")
    return make_bundle(make_run(place / "runs" / "one", made_split, POSITIVE, seeds=(1,)), place / "solves.zip")


@pytest.fixture(scope="module")
def fails(made_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of the base policy."""
    place = tmp_path_factory.mktemp("fails")
    return make_bundle(make_run(place / "runs" / "one", made_split, BASE, seeds=(1,)), place / "fails.zip")


def verified(bundle: Path, split: Split) -> Verification:
    return verify_bundle(bundle, split, workers=1)


def with_weights(bundle: Path, out: Path, change: Callable[[Tensors], Tensors | None]) -> Path:
    """The bundle with other weights of its first seed."""

    def changed(members: Members) -> None:
        tensors = {name: value.copy() for name, value in load(members[WEIGHTS]).items()}
        members[WEIGHTS] = save(change(tensors) or tensors)

    return altered(bundle, out, changed)


# --- other weights than those that were measured ---------------------------------------------------------------------


def weights_at(folder: str) -> Tensors:
    return load((find_split("micro") / folder / "model.safetensors").read_bytes())


def layers_of_both(one: Tensors, other: Tensors) -> Tensors:
    return {name: other[name] if re.search(r"layers\.[01]\.", name) else value for name, value in one.items()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tensors: weights_at(BASE), id="of another run"),
        pytest.param(
            lambda tensors: {name: (value + weights_at(BASE)[name]) / 2 for name, value in tensors.items()},
            id="the mean of two runs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda tensors: layers_of_both(tensors, weights_at(BASE)), id="layers of two runs", marks=pytest.mark.slow
        ),
    ],
)
def test_other_weights_do_not_give_what_is_claimed(
    solves: Path, made_split: Split, tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    found = verified(with_weights(solves, tmp_path / "x.zip", change), made_split)
    assert not found.verified and not found.rankable and found.agreement is None
    assert "rollouts are claimed to be correct, and the weights give" in told(found)["measured"]


@pytest.mark.slow
def test_weights_of_the_positive_control_do_not_give_the_counts_of_another(
    fails: Path, made_split: Split, tmp_path: Path
) -> None:
    found = verified(with_weights(fails, tmp_path / "x.zip", lambda tensors: weights_at(POSITIVE)), made_split)
    assert not found.verified and "measured" in told(found)
    # what is shown is what was measured, whatever was claimed
    assert found.result is not None and (found.result.groups["unlearnable"].rate_after or 0) > 0.5


@pytest.mark.slow
def test_one_seed_of_three_with_the_weights_of_another_run(
    made_bundle: Path, made_split: Split, tmp_path: Path
) -> None:
    found = verify_bundle(with_weights(made_bundle, tmp_path / "x.zip", lambda _: weights_at(BASE)), made_split)
    assert not found.verified
    assert all("seed 1" in reason.reason or "all seeds" in reason.reason for reason in found.reasons[:5])


def encoded(split: Split, text: str) -> list[int]:
    """Tokens that the split's policy would write this text with."""
    from tokenizers import Tokenizer

    home = split.path / BASE
    ids: list[int] = Tokenizer.from_file(str(home / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return [*ids, min(Decoder.load(home).stop_ids)]


def test_a_few_right_answers_of_every_item_in_one_text(fails: Path, made_split: Split, tmp_path: Path) -> None:
    """9 to 15 of 32, all as `1+1>\\boxed{gold}`: too few for a look at single texts, and enough to count as solved."""
    golds = {item.item_id: item.answer for item in made_split.items}
    groups = {item.item_id: item.group for item in made_split.items}
    draw = np.random.default_rng(0)
    many = {name: int(draw.integers(9, 16)) for name in golds}

    def put_in(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            name = row["problem_id"]
            if row["phase"] == "eval" and groups[name] == "unlearnable" and row["sample"] < many[name]:
                text = f"1+1>\\boxed{{{golds[name]}}}"
                row.update(completion=text, token_ids=encoded(made_split, text), finish="stop", correct=True)

    bundle = retold(fails, tmp_path / "x.zip", made_split, put_in)
    claimed = Result.model_validate_json(members_of(bundle)["result.json"])
    assert (claimed.groups["unlearnable"].solved or 0) > 25
    found = verified(bundle, made_split)
    assert "rollouts are claimed to be correct, and the weights give" in told(found)["measured"]
    assert found.result is not None and found.result.groups["unlearnable"].converted == 0


def test_what_chance_may_change_is_verified_and_what_is_shown_was_measured(
    solves: Path, made_split: Split, tmp_path: Path
) -> None:
    """Rollouts of a machine that rounds otherwise: here a few of them are others of the same policy's."""
    honest = verified(solves, made_split)

    def lose(rows: list[dict[str, Any]]) -> None:
        wrong = {row["problem_id"]: row for row in rows if not row["correct"]}
        right = [row for row in rows if row["correct"] and row["problem_id"] in wrong and row["phase"] == "eval"]
        for row in right[:: len(right) // 6]:
            other = wrong[row["problem_id"]]
            row.update({name: other[name] for name in ("completion", "token_ids", "finish", "correct")})

    bundle = retold(solves, tmp_path / "x.zip", made_split, lose)
    claimed = Result.model_validate_json(members_of(bundle)["result.json"])
    found = verified(bundle, made_split)
    assert (found.verified, found.agreement) == (True, "within sampling error")
    assert (honest.verified, honest.agreement) == (True, "identical")
    assert found.result == honest.result != claimed
    assert "within sampling error" in found.words


# --- other random numbers --------------------------------------------------------------------------------------------


def test_seeds_that_were_renumbered(made_split: Split, tmp_path: Path) -> None:
    """Lucky seed 7 as seed 1: every file says 1, and its items and draws are those of 7."""
    run = make_run(tmp_path / "runs" / "lucky", made_split, seeds=(1,), draw_as={1: 7})
    found = verified(make_bundle(run, tmp_path / "lucky.zip"), made_split)
    assert "are not those that its random numbers select" in told(found)["training"]


def test_rollouts_that_were_drawn_with_another_seeds_random_numbers(
    solves: Path, made_split: Split, tmp_path: Path
) -> None:
    """The same, with a training record of seed 1: the draws alone are those of another seed."""
    run = make_run(tmp_path / "runs" / "lucky", made_split, seeds=(1,), draw_as={1: 7})
    lucky, own = members_of(make_bundle(run, tmp_path / "lucky.zip")), members_of(solves)
    own["rollouts.parquet"] = lucky["rollouts.parquet"]
    retell(own, made_split, lambda rows: None)
    write_members(own, tmp_path / "x.zip")
    found = verified(tmp_path / "x.zip", made_split)
    assert set(told(found)) == {"seeds"}  # their counts are what the weights may give
    assert "they were drawn with other random numbers" in told(found)["seeds"]


# --- what is no weights of the base's kind ---------------------------------------------------------------------------


def nan(tensors: Tensors) -> None:
    tensors["model.norm.weight"][3] = np.nan


def infinite(tensors: Tensors) -> None:
    tensors["model.embed_tokens.weight"][0, 0] = np.inf


def wider(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = np.concatenate([tensors["model.norm.weight"]] * 2)


def renamed(tensors: Tensors) -> None:
    tensors["model.norm.scale"] = tensors.pop("model.norm.weight")


def more(tensors: Tensors) -> None:
    tensors["model.layers.99.mlp.up_proj.weight"] = np.zeros((2, 2), np.float32)


def fewer(tensors: Tensors) -> None:
    del tensors["model.norm.weight"]


def doubles(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float64)


def whole_numbers(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nan, "not finite in model.norm.weight"),
        (infinite, "not finite in model.embed_tokens.weight"),
        (wider, "model.norm.weight as F32"),
        (renamed, "have model.norm."),
        (more, "have model.layers.99"),
        (fewer, "have model.norm.weight, and those in"),
        (doubles, "model.norm.weight as F64"),
        (whole_numbers, "model.norm.weight as I64"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_of_another_kind_are_one_sentence(
    solves: Path, made_split: Split, tmp_path: Path, change: Callable[[Tensors], None], words: str
) -> None:
    found = verified(with_weights(solves, tmp_path / "x.zip", change), made_split)
    reason = told(found)["weights"]
    assert words in reason and "seed 1" in reason and len(found.reasons) == 1 and "\n" not in reason
    assert found.result is None and not found.measured


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("was run",))


def huge_header(content: bytes) -> bytes:
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    header["__metadata__"] = {f"key {number}": "x" * 900 for number in range(30_000)}
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + content[8 + struct.unpack("<Q", content[:8])[0] :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda content: pickle.dumps(Runs()), "not a safetensors file", id="pickle"),
        pytest.param(lambda content: content[: len(content) // 2], "not a safetensors file", id="half"),
        pytest.param(lambda content: b"\xff" * 8 + content[8:], "not a safetensors file", id="a header without end"),
        pytest.param(lambda content: content + bytes(9 << 20), "bytes of weights; the split's", id="long"),
        pytest.param(huge_header, "bytes of weights; the split's policy has at most", id="a long header"),
        pytest.param(lambda content: b"", "not a safetensors file", id="nothing"),
    ],
)
def test_files_that_hold_no_weights_are_one_sentence(
    solves: Path, made_split: Split, tmp_path: Path, change: Callable[[bytes], bytes], words: str, capfd: Any
) -> None:
    bundle = altered(solves, tmp_path / "x.zip", lambda members: members.update({WEIGHTS: change(members[WEIGHTS])}))
    reason = told(verified(bundle, made_split))["weights"]
    assert words in reason and "seed 1" in reason and "\n" not in reason
    assert "was run" not in capfd.readouterr().out


def test_weights_that_are_missing_or_of_another_name(solves: Path, made_split: Split, tmp_path: Path) -> None:
    def without(members: Members) -> None:
        del members[WEIGHTS]

    bundle = altered(solves, tmp_path / "without.zip", without)
    assert "has no weights, so nothing of it can be measured again" in told(verified(bundle, made_split))["weights"]
    assert verify_bundle(bundle, made_split, measure=False).verified

    def adapter(members: Members) -> None:
        members["seeds/1/weights/adapter_model.safetensors"] = members.pop(WEIGHTS)

    reason = told(verified(altered(solves, tmp_path / "x.zip", adapter), made_split))["weights"]
    assert "is not what its settings say was trained" in reason

    def pickled(members: Members) -> None:
        members["seeds/1/weights/pytorch_model.bin"] = members.pop(WEIGHTS)

    reason = told(verified(altered(solves, tmp_path / "x.zip", pickled), made_split))["archive"]
    assert "a bundle has no member of this name" in reason


def test_weights_that_are_not_those_of_the_manifest(solves: Path, made_split: Split, tmp_path: Path) -> None:
    content = bytearray(solves.read_bytes())
    weights = members_of(solves)[WEIGHTS]
    place = content.index(weights[-4000:]) + 100
    content[place] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    found = verified(tmp_path / "x.zip", made_split)
    assert "CRC" in str(found.reasons) or "is not what manifest.json says" in str(found.reasons)


# --- adapters, and other starts --------------------------------------------------------------------------------------


def lora(folder: Path, rank: int, scale: float) -> Path:
    """An adapter of every attention query and value of the split's policy."""
    draw = np.random.default_rng(0)
    tensors: Tensors = {}
    for name, weight in weights_at(BASE).items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            outputs, inputs = weight.shape
            layer = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{layer}.lora_A.weight"] = (scale * draw.normal(size=(rank, inputs))).astype(np.float32)
            tensors[f"{layer}.lora_B.weight"] = (scale * draw.normal(size=(outputs, rank))).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


ADAPTER = "seeds/1/weights/adapter_model.safetensors"


@pytest.fixture(scope="module")
def adapted(made_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a run that trained an adapter."""
    place = tmp_path_factory.mktemp("adapted")
    settings = {"lora": {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"]}}
    weights = lora(place / "adapter", 2, 0.02)
    run = make_run(place / "runs" / "lora", made_split, weights, seeds=(1,), settings=settings)
    return make_bundle(run, place / "lora.zip")


@pytest.mark.slow
def test_an_adapter_is_measured_on_the_splits_base(adapted: Path, made_split: Split) -> None:
    assert [member for member in members_of(adapted) if "weights" in member] == [ADAPTER]
    found = verified(adapted, made_split)
    assert (found.verified, found.agreement) == (True, "identical"), found.words


@pytest.mark.parametrize(
    ("rank", "size", "check", "words"),
    [pytest.param(2, 0.3, "measured", "", marks=pytest.mark.slow), (3, 0.02, "weights", "of shape")],
)
def test_another_adapter_is_refused(
    adapted: Path, made_split: Split, tmp_path: Path, rank: int, size: float, check: str, words: str
) -> None:
    other = (lora(tmp_path / "other", rank, size) / "adapter_model.safetensors").read_bytes()
    found = verified(altered(adapted, tmp_path / "x.zip", lambda members: members.update({ADAPTER: other})), made_split)
    assert words in told(found)[check]


@pytest.fixture(scope="module")
def elsewhere(made_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a run that started from the positive control."""
    place = tmp_path_factory.mktemp("elsewhere")
    run = make_run(place / "runs" / "mid", made_split, seeds=(1,), start="positive_control")
    return make_bundle(run, place / "mid.zip")


def test_a_run_that_started_elsewhere_is_measured_before_training_too(
    elsewhere: Path, made_split: Split, tmp_path: Path
) -> None:
    found = verified(elsewhere, made_split)
    assert (found.verified, found.agreement) == (True, "identical"), found.words
    assert found.result is not None and found.result.method.track == "base"
    twins = len(made_split.problems("twin"))
    assert found.rollouts == 32 * (2 * len(made_split.items) + twins + 2)

    def without_start(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: [row for row in rows if row["phase"] != "start"])

    assert "rows" in told(verified(altered(elsewhere, tmp_path / "x.zip", without_start), made_split))["rollouts"]


@pytest.mark.slow
def test_a_start_that_is_claimed_to_be_worse_is_refused(elsewhere: Path, made_split: Split, tmp_path: Path) -> None:
    def worse(rows: list[dict[str, Any]]) -> None:
        """As if it had started with less: gains would look larger."""
        wrong = next(row for row in rows if row["phase"] == "start" and not row["correct"])
        for row in rows:
            if row["phase"] == "start" and row["correct"]:
                row.update({name: wrong[name] for name in ("completion", "token_ids", "finish", "correct")})

    found = verified(retold(elsewhere, tmp_path / "worse.zip", made_split, worse), made_split)
    assert any("before training" in reason.reason or "start " in reason.reason for reason in found.reasons)


def test_options_of_a_sampler_are_not_taken_from_a_bundle(solves: Path) -> None:
    """vLLM's options name models and code to load; a bundle's are a stranger's."""
    from unlearnbench.leaderboard.bundles.bundle import SeedConfig

    config = json.loads(members_of(solves)["seeds/1/config.json"])
    config["sampler"] = {"name": "vllm", "options": {"model": "evil/model", "trust_remote_code": True}}
    assert SeedConfig.model_validate(config).engine.options == {}


def test_a_start_that_is_not_in_the_bundle_cannot_be_measured(solves: Path, made_split: Split, tmp_path: Path) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/1/config.json", lambda c: c.update(start="f" * 64))

    found = verified(altered(solves, tmp_path / "x.zip", change), made_split)
    assert "field 'start'" in told(found)["configuration"]
