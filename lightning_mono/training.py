"""Runs a recipe: everything is built, trained as far as is left, exported and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch

from lightning_mono import build
from lightning_mono.backbones import Backbone, load_backbone
from lightning_mono.callbacks.order import order_mark
from lightning_mono.checkpoints.run import latest, read, step_of
from lightning_mono.data.store import Store
from lightning_mono.errors import CheckpointError, DataError, RecipeError
from lightning_mono.evaluation.evaluate import evaluate
from lightning_mono.export import trained_model
from lightning_mono.inference import Assistant
from lightning_mono.journal import Journal
from lightning_mono.model.decoder import recompute_layers
from lightning_mono.module import MonoModule
from lightning_mono.recipe import Recipe
from lightning_mono.recipe.content import backbone_recipe
from lightning_mono.recipe.validate import needs
from lightning_mono.retention.text import HeldOut, held_out_text
from lightning_mono.rounding import restore_text, round_text
from lightning_mono.runs import RunFolder, dependency, is_follower, only_writer, open_run
from lightning_mono.starting import start_from, starting_point, vocabulary_mark
from lightning_mono.trainer import build_callbacks, build_loader, build_trainer

WEIGHTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
"""What the weights are cast to, by precision; float32 for any other."""


@dataclass(frozen=True)
class FitResult:
    """What a run leaves.

    Attributes:
        run: the run folder.
        assistant: the trained model, ready to be asked.
        metrics: what metrics.json holds; empty where the recipe measures nothing.
    """

    run: RunFolder
    assistant: Assistant
    metrics: dict[str, object]


def fit(recipe: Recipe, *, resume: bool = False, fresh: bool = False) -> FitResult:
    """Trains a recipe's stages, then measures what it asks for and writes the report.

    Args:
        recipe: what to run.
        resume: go on with the run in the recipe's folder, if there is one.
        fresh: delete that run first.

    Raises:
        UserError: the recipe does not fit the model, data cannot be had, a checkpoint cannot be
            written or belongs to another recipe; nothing saved is lost.
    """
    with only_writer(recipe):
        return _fit(recipe, resume=resume, fresh=fresh)


def ensure(recipe: Recipe) -> RunFolder:
    """A recipe's finished run: the one that is there, or else one made now, by one process."""
    run = RunFolder(Path(recipe.out))
    if run.metrics.is_file():
        return run
    with only_writer(recipe, wait=True):
        return run if run.metrics.is_file() else _fit(recipe, resume=True).run


def _fit(recipe: Recipe, *, resume: bool = False, fresh: bool = False) -> FitResult:
    started = time.monotonic()
    lacking = list(needs(recipe))
    if lacking:
        raise RecipeError("\n".join(lacking))
    build.check_on_meta(recipe)
    run = open_run(recipe, resume=resume, fresh=fresh)
    session = Session(recipe, run, Journal(run.journal, silent=is_follower()))
    assistant = session.train()
    if is_follower():
        return FitResult(run, assistant, {})
    metrics = evaluate(
        recipe,
        run,
        assistant,
        question_only=session.question_only(),
        language_run=session.language_run,
        started=started,
    )
    return FitResult(run, assistant, metrics)


class Session:
    """One process' work on a run: model and data are built, then trained as far as is left."""

    def __init__(self, recipe: Recipe, run: RunFolder, journal: Journal) -> None:
        self.recipe, self.run, self.journal = recipe, run, journal
        self.language_run: Path | None = None
        pl.seed_everything(recipe.seed, workers=True, verbose=False)
        ready = self._ready_backbone()
        with journal.part("prepare"):
            stores = self._open_data()
            self.mono = self._model(ready, stores)
            self.mono.model.to(WEIGHTS.get(recipe.trainer.precision, torch.float32))
            round_text(recipe, self.mono.model, journal)
            self.data = {
                name: build.stage_data(recipe, name, found, self.mono.renderer, self.mono.pad_id)
                for name, found in stores.items()
                if any(stage.data == name for stage in recipe.stages.values())
            }
            self._note_skipped()
        recompute_layers(self.mono.model, recipe.trainer.activation_checkpointing)
        self.schedule = build.build_schedule(recipe, self.mono.model, self.data)
        self.module = MonoModule(
            self.mono.model, self.schedule.stages[0].optim, by_layer=self.schedule.by_layer
        )

    def train(self) -> Assistant:
        """Trains from the newest checkpoint to the end, unless that is done; exports the model."""
        newest = latest(self.run.checkpoints)
        if newest is not None:
            self._refuse_another_model(newest)
        if newest is None or step_of(newest) < self.schedule.total_steps:
            with self.journal.part("train"):
                self._train(newest)
            newest = latest(self.run.checkpoints)
        assert newest is not None  # the last stage's end was saved
        model, mono = trained_model(self.mono.model, newest), self.mono
        language = RunFolder(self.language_run).model if self.language_run else None
        restore_text(self.recipe, model, language)
        assistant = Assistant(model, mono.renderer, mono.chat, mono.files)
        assistant.save(self.run.model)
        return assistant

    def question_only(self) -> RunFolder | None:
        """The run that saw the same questions without the images; it is made if need be."""
        name = self.recipe.evaluation.question_only
        if name is None:
            return None
        with self.journal.part("compare:question_only"):
            return ensure(dependency(name, self.recipe))

    def _train(self, newest: Path | None) -> None:
        callbacks = build_callbacks(
            self.recipe,
            self.run,
            self.journal,
            self.schedule,
            newest=newest,
            vocabulary=vocabulary_mark(self.mono.renderer.tokenizer),
            order={
                name: order_mark(data, self.recipe.trainer.devices)
                for name, data in self.data.items()
            },
            text=self._retention_text(),
        )
        trainer = build_trainer(self.recipe, self.run, self.schedule, callbacks)
        loader = build_loader(self.recipe, trainer, self.schedule, self.data)
        trainer.fit(self.module, loader, ckpt_path=newest, weights_only=True)

    def _ready_backbone(self) -> Backbone | None:
        """The backbone that exists, or that another recipe makes; None where there is none."""
        if self.recipe.model.backbone is None:
            return None
        maker = backbone_recipe(self.recipe)
        if maker is None:
            return build.named_backbone(self.recipe)
        inner = dependency(maker, self.recipe)
        with self.journal.part("language"):
            run = ensure(inner)
        self.language_run = run.path
        pl.seed_everything(self.recipe.seed, workers=True, verbose=False)
        return load_backbone(str(run.model))

    def _model(
        self, ready: Backbone | None, stores: dict[str, list[tuple[Store, float]]]
    ) -> build.Mono:
        if self.recipe.model.pretrained is not None:
            mono = build.pretrained_model(self.recipe)
        else:
            backbone = ready or build.scratch_backbone(
                self.recipe, {name: [store for store, _ in found] for name, found in stores.items()}
            )
            mono = build.build_model(self.recipe, backbone)
        if self.recipe.model.init_from is not None:
            path = starting_point(self.recipe.model.init_from)
            start_from(mono.model, path, vocabulary_mark(mono.renderer.tokenizer))
        return mono

    def _refuse_another_model(self, newest: Path) -> None:
        """A checkpoint holds the weights of the model it was written for, and of no other."""
        saved, ours = (
            {name: tuple(value.shape) for name, value in state.items()}
            for state in (read(newest)["state_dict"], self.module.state_dict())
        )
        other = sorted(name for name in saved | ours if saved.get(name) != ours.get(name))
        if other:
            raise CheckpointError(
                f"{newest}: {other[0].removeprefix('model.')} is not as the recipe has it; undo "
                "the change of its model section, or start a run of another name"
            )

    def _open_data(self) -> dict[str, list[tuple[Store, float]]]:
        def note(line: str) -> None:
            print(line, flush=True)

        return {
            name: build.open_sources(section.sources, f"data.{name}", note, section.workers)
            for name, section in self.recipe.data.items()
        }

    def _note_skipped(self) -> None:
        """Says what will not be trained on: unreadable samples, and what does not fit."""
        for name, data in self.data.items():
            for store in data.stores:
                manifest = store.manifest
                if manifest["skipped_count"]:
                    self._skipped(
                        f"{manifest['source']}/{manifest['split']}",
                        manifest["skipped_count"],
                        manifest["skipped"][:5],
                    )
            if data.skipped:
                examples = [{"id": s.id, "reason": s.reason} for s in data.skipped[:5]]
                self._skipped(f"data.{name}", len(data.skipped), examples)

    def _skipped(self, source: str, count: int, examples: list[dict[str, str]]) -> None:
        self.journal.write("skipped", source=source, count=count, examples=examples)
        first = examples[0]
        print(f"{source}: {count} skipped, e.g. {first['id']}: {first['reason']}", flush=True)

    def _retention_text(self) -> HeldOut | None:
        """Held-out text, where the recipe names some."""
        section = self.recipe.evaluation
        if section.retention_source is None:
            return None
        store = build.open_source(section.retention_source)
        texts = (store[index].text for index in range(len(store)))
        try:
            return held_out_text(texts, self.mono.renderer.tokenizer, section.retention_tokens)
        except DataError as error:
            raise DataError(f"evaluation.retention_source: {error}") from error
