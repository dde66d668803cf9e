"""Runs a recipe: the only place that builds a Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_mono import build
from lightning_mono.backbones import Backbone, load_backbone
from lightning_mono.callbacks.checkpoints import PeriodicCheckpoint
from lightning_mono.callbacks.journal import JournalCallback
from lightning_mono.callbacks.progress import StageProgress
from lightning_mono.callbacks.retention import TextRetention, rows_of
from lightning_mono.callbacks.stages import StageScheduler
from lightning_mono.checkpoints.run import AtomicCheckpointIO, latest, read, step_of
from lightning_mono.data.loader import StageData, StagedLoader, stage_loader
from lightning_mono.data.store import Store
from lightning_mono.errors import CheckpointError
from lightning_mono.evaluation.evaluate import evaluate
from lightning_mono.inference import Assistant
from lightning_mono.journal import Journal
from lightning_mono.model import Batch, MonoModel
from lightning_mono.model.meta import on_meta
from lightning_mono.model.quantised import bytes_by_group, quantise, restore
from lightning_mono.module import MonoModule
from lightning_mono.params import TEXT_PATH
from lightning_mono.recipe import Recipe
from lightning_mono.runs import RunFolder, backbone_recipe, dependency, is_follower, open_run
from lightning_mono.strategies import build_strategy, is_sharded

WEIGHTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
"""What the weights are cast to, by precision; float32 for any other."""

RETENTION_WIDTH = 128
"""Tokens in a row of held-out text."""


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
    started = time.monotonic()
    build.check_on_meta(recipe)
    run = open_run(recipe, resume=resume, fresh=fresh)
    session = Session(recipe, run, Journal(run.journal, silent=is_follower()))
    session.train()
    if is_follower():
        return FitResult(run, session.assistant, {})
    metrics = evaluate(
        recipe,
        run,
        session.assistant,
        question_only=session.question_only(),
        language_run=session.language_run,
        started=started,
    )
    return FitResult(run, session.assistant, metrics)


def ensure(recipe: Recipe) -> RunFolder:
    """A recipe's finished run: the one that is there, or else one made now."""
    run = RunFolder(Path(recipe.out))
    return run if run.metrics.is_file() else fit(recipe, resume=True).run


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
            self._quantise()
            self.data = {
                name: build.stage_data(recipe, name, found, self.mono.renderer, self.mono.pad_id)
                for name, found in stores.items()
                if any(stage.data == name for stage in recipe.stages.values())
            }
            self._note_skipped()
        mono = self.mono
        self.assistant = Assistant(mono.model, mono.renderer, mono.chat, mono.files)
        self.schedule = build.build_schedule(recipe, self.mono.model, self.data)
        self.module = MonoModule(self.mono.model, self.schedule.stages[0].optim)

    def train(self) -> None:
        """Trains from the newest checkpoint to the end, unless that is done; exports the model."""
        newest = latest(self.run.checkpoints)
        if newest is not None:
            self._refuse_another_model(newest)
        if newest is not None and step_of(newest) >= self.schedule.total_steps:
            self.module.load_state_dict(read(newest)["state_dict"])
        else:
            with self.journal.part("train"):
                self._train(newest)
            if is_sharded(self.mono.model):
                self._take_whole_model()
        self.mono.model.requires_grad_(False)
        self._restore()
        self.assistant.save(self.run.model)

    def question_only(self) -> RunFolder | None:
        """The run that saw the same questions without the images; it is made if need be."""
        name = self.recipe.evaluation.question_only
        if name is None:
            return None
        with self.journal.part("compare:question_only"):
            return ensure(dependency(name, self.recipe))

    def _train(self, newest: Path | None) -> None:
        recipe, schedule = self.recipe, self.schedule
        callbacks: list[pl.Callback] = [StageProgress(schedule)]
        text = self._retention_text()
        if text is not None:
            callbacks.append(TextRetention(text, self.journal, schedule, self.run.reference))
        callbacks += [
            StageScheduler(schedule, self.run.checkpoints, newest),
            JournalCallback(self.journal, schedule, recipe.trainer.log_every),
            PeriodicCheckpoint(self.run.checkpoints, recipe.trainer.checkpoint_every),
        ]
        section = recipe.trainer
        trainer = pl.Trainer(
            accelerator=section.accelerator,
            devices=section.devices,
            strategy=build_strategy(
                section.strategy, section.kernel, section.accelerator, section.devices
            ),
            # Lightning's own casts would take the batch along, whose loss weights are to stay fp32.
            precision="bf16-mixed" if section.precision == "bf16-mixed" else "32-true",
            plugins=[AtomicCheckpointIO()],
            max_steps=schedule.total_steps,
            max_epochs=-1,  # the steps decide; the loader is one long epoch
            logger=TensorBoardLogger(self.run.path, name="tensorboard", version=""),
            callbacks=callbacks,
            log_every_n_steps=section.log_every,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(self.module, self._loader(trainer), ckpt_path=newest, weights_only=True)

    def _take_whole_model(self) -> None:
        """Exchanges a model that lies in parts with all processes for the one just saved."""
        mono, newest = self.mono, latest(self.run.checkpoints)
        assert newest is not None
        with on_meta():
            model = MonoModel(mono.model.config)
        state = read(newest)["state_dict"]
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items()}, assign=True)
        model.entries = mono.model.entries
        self.mono = replace(mono, model=model)
        self.assistant = Assistant(model, mono.renderer, mono.chat, mono.files)

    def _loader(self, trainer: pl.Trainer) -> StagedLoader:
        def batches(data: StageData, workers: int) -> Callable[[int], Iterable[Batch]]:
            return lambda start: stage_loader(
                data,
                start=start,
                rank=trainer.global_rank,
                world=trainer.world_size,
                workers=workers,
            )

        return StagedLoader(
            [
                (batches(self.data[s.data], self.recipe.data[s.data].workers), s.steps)
                for s in self.schedule.stages
            ]
        )

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
            return build.pretrained_model(self.recipe)
        backbone = ready or build.scratch_backbone(
            self.recipe, {name: [store for store, _ in found] for name, found in stores.items()}
        )
        return build.build_model(self.recipe, backbone)

    def _quantise(self) -> None:
        """Rounds the text weights where the recipe says so, and notes what that saves."""
        scheme, model = self.recipe.model.quantize, self.mono.model
        if scheme == "none":
            return
        before = bytes_by_group(model)
        quantise(model, scheme)
        after = bytes_by_group(model)
        self.journal.write("quantised", scheme=scheme, bytes_before=before, bytes_after=after)

        def megabytes(groups: Iterable[str]) -> str:
            sizes = (sum(by[group] for group in groups) / 1e6 for by in (before, after))
            return " MB -> ".join(f"{size:,.1f}" for size in sizes) + " MB"

        text = megabytes(TEXT_PATH & before.keys())
        print(f"{scheme}: text {text}; whole model {megabytes(before)}", flush=True)

    def _restore(self) -> None:
        """Puts the full text weights back: what is exported and measured has no rounded ones."""
        if self.recipe.model.quantize != "none":
            language = RunFolder(self.language_run).model if self.language_run else None
            restore(self.mono.model, build.full_weights(self.recipe, language))

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
            name: build.open_sources(section.sources, f"data.{name}", note)
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

    def _retention_text(self) -> Tensor | None:
        """Held-out text, (rows, tokens) int64, where the recipe names some."""
        section = self.recipe.evaluation
        if section.retention_source is None:
            return None
        store = build.open_source(section.retention_source)
        tokenizer = self.mono.renderer.tokenizer
        ids: list[int] = []
        for index in range(len(store)):
            ids += tokenizer.encode(store[index].text + "\n\n", add_special_tokens=False).ids
            if len(ids) >= section.retention_tokens:
                break
        return rows_of(ids, RETENTION_WIDTH, section.retention_tokens)
