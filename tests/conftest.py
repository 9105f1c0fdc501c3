"""Fixtures: a small labelled split around the shipped micro policy, so that tests train a real policy in seconds."""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from tiny import make

from unlearnbench.io.tables import read_records, write_records
from unlearnbench.records import Item, Protocol, RelatedProblem, Sampling
from unlearnbench.splits import Split, find_split, load_split, write_split

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")

LONGEST = (
    "test_evaluate.py",
    "test_remeasured.py",
    "test_structure.py",
    "test_hostile_methods.py",
    "test_leaderboard.py",
    "test_privileges.py",
    "test_similar_probes.py",
    "test_benchmarks.py",
    "test_processes.py",
    "test_editions.py",
    "test_diagnose.py",
    "test_cases.py",
    "test_plan.py",
    "test_hub_policy.py",
)
"""Files of ten seconds and more: last, one of them would leave the other worker of xdist without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the longest of them before all; of the others those of many tests, as xdist has it."""
    tests = Counter(item.path for item in items)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.name, len(LONGEST)), -tests[item.path], item.path))


def pytest_configure() -> None:
    """What the test modules import stays to the end: it is not searched for garbage, neither now nor in the tests."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)  # a figure makes thousands of objects, and a search goes through all of them
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the package keeps of a machine, it keeps in a folder of these tests, which the workers of xdist share."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    os.environ.setdefault("UNLEARNBENCH_HOME", str(shared / "home"))


@pytest.fixture(scope="session")
def micro() -> Split:
    """The shipped split."""
    return load_split("micro")


@pytest.fixture(scope="session")
def small_split(tmp_path_factory: pytest.TempPathFactory, micro: Split) -> Split:
    """Some items of every group of micro, with its policy, twins, canaries and counts, and a tiny recipe."""
    folder = tmp_path_factory.mktemp("splits") / "small"
    shutil.copytree(find_split("micro") / "policy", folder / "policy")
    items: list[Item] = []
    for group in ("easy", "learnable", "unlearnable", "unstable"):
        items += [item for item in micro.items if item.group == group][:10]
    ids = {item.item_id for item in items}
    config = micro.config.model_copy(
        update={
            "name": "small",
            "files": {},
            "recipe": micro.config.recipe.model_copy(
                update={"steps": 6, "prompts_per_step": 12, "checkpoint_every": 3, "micro_batch_tokens": 1024}
            ),
            "protocol": Protocol(
                sampling=Sampling(max_tokens=micro.config.protocol.sampling.max_tokens), valid_trace="solution"
            ),
            "budget": None,
        }
    )

    def of_items(table):  # type: ignore[no-untyped-def]
        import pyarrow as pa
        import pyarrow.compute as pc

        return table.filter(pc.is_in(table["item_id"], pa.array(sorted(ids))))

    for name in ("similar", "sub_problems"):
        rows = read_records(find_split("micro") / f"{name}.parquet", RelatedProblem)
        write_records(folder / f"{name}.parquet", [row for row in rows if row.item_id in ids], RelatedProblem)
    shutil.copytree(find_split("micro") / "positive_control/policy", folder / "positive_control/policy")
    return write_split(
        folder,
        config,
        items,
        twins=[twin for twin in micro.twins if twin.item_id in ids],
        canaries=list(micro.canaries[:2]),
        counts=of_items(micro.counts()),
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete small split, to copy."""
    return make(tmp_path_factory.mktemp("template") / "tiny").path


@pytest.fixture
def tiny(template: Path, tmp_path: Path) -> Split:
    """A complete small split of the test's own."""
    return Split(Path(shutil.copytree(template, tmp_path / "tiny")))


@pytest.fixture
def training(small_split: Split, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Make the run of a method class on the small split: `training(cls, folder, steps=6, **settings)`."""
    from local_judge import local_judge

    from unlearnbench.method import Method, PoolItem, settings_of
    from unlearnbench.policies.lora import adapt
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.policies.samplers.transformers import TransformersSampler
    from unlearnbench.splits import seal
    from unlearnbench.splits.sealed import read_sealed
    from unlearnbench.training.build import Models
    from unlearnbench.training.loop import Training
    from unlearnbench.training.run_spec import Limits, RunSpec

    sealed = read_sealed(seal(small_split, tmp_path_factory.mktemp("sealed") / "copy"))

    def make(  # type: ignore[no-untyped-def]
        cls: type[Method], folder, steps: int = 6, seed: int = 1, flops: int | None = None, sampler=None, **changes
    ):
        settings = settings_of(cls, sealed.config.recipe, changes)
        policy, reference = load_policy(sealed.policy), load_policy(sealed.policy)
        if settings.lora is not None:
            policy, reference = adapt(policy, settings.lora, f"test/{seed}")
        run = Training(
            cls(settings),
            [PoolItem(item_id, prompt) for item_id, prompt in sealed.pool],
            Models(policy, reference, (sampler or TransformersSampler)(policy)),
            local_judge(small_split, folder, max_tokens=settings.max_tokens),
            RunSpec(f"test/{seed}", seed, Limits(flops, steps), folder, "test"),
        )
        run.resume()
        return run

    return make


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: status, standard output, standard error."""
    from unlearnbench.cli.main import run

    def call(*words: str | Path) -> tuple[int, str, str]:
        status = run([str(word) for word in words])
        return (status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def made_split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Some of micro with its policy and a null control, for runs of policies that are there."""
    from made_bundle import make_split

    return make_split(tmp_path_factory.mktemp("made") / "split")


@pytest.fixture(scope="session")
def made_run(made_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on it, with all files of `eval`."""
    from made_bundle import make_run

    return make_run(tmp_path_factory.mktemp("made") / "mine", made_split)


@pytest.fixture(scope="session")
def made_bundle(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that run."""
    from made_bundle import make_bundle

    return make_bundle(made_run, tmp_path_factory.mktemp("made") / "mine.zip")


@pytest.fixture
def refused(made_bundle: Path, made_split: Split, tmp_path: Path):  # type: ignore[no-untyped-def]
    """The first reason of each check against the bundle with a change (`made_bundle.Refused`)."""
    from made_bundle import altered, told

    from unlearnbench.leaderboard.verification import verify_bundle

    def reasons(change):  # type: ignore[no-untyped-def]
        found = verify_bundle(altered(made_bundle, tmp_path / "altered.zip", change), made_split, workers=1)
        assert not found.verified
        assert not found.rankable
        return dict(told(found))

    return reasons
