"""All that can be wrong with a recipe and can be known without building anything."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from lightning_mono.errors import RecipeError
from lightning_mono.params import ALIASES, GROUPS, QUANTISABLE
from lightning_mono.recipe.schema import (
    BenchmarkSection,
    ImageSection,
    PatchifierSection,
    Recipe,
    SourceSection,
    StageSection,
    TilesSection,
    VitSection,
)
from lightning_mono.stages import SCHEDULES, Duration, Optim

SOURCES = (
    "easy_vqa",
    "easy_vqa_blind",
    "easy_vqa_captions",
    "easy_vqa_reading",
    "art4apps",
    "tuxpaint",
    "tux_scenes",
    "tux_scenes_blind",
    "emoji",
    "gcompris_words",
    "gcompris_paragraphs",
    "gcompris_photos",
    "gimp_help",
    "plots",
    "pdf_pages",
    "stdlib_docs",
    "text_files",
    "jsonl",
    "llava",
    "webdataset",
    "table",
)
OF_FILES = ("text_files", "jsonl", "llava", "webdataset", "table")
PATCHIFIERS = ("conv", "linear", "two_conv", "vit")
NORMS = ("layer_norm", "rms_norm")
CHATS = ("internlm2-chat", "chatml", "llama3", "zephyr", "plain")
KERNELS = ("auto", "masked_dense", "gathered", "grouped", "triton", "triton_recompute")
STRATEGIES = ("auto", "mono_single", "mono_ddp", "mono_fsdp2")
OPTIMIZERS = ("adamw", "adamw8bit")
QUANTIZE = ("none", "nf4", "int8")
RETENTION_TOKENS = 128
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")


def problems(recipe: Recipe) -> list[str]:
    """Every problem, each one line that starts with the key; an empty list means it is sound.

    A sound recipe may still need data or weights that are not there; see :func:`needs`.
    """
    return [
        *_model(recipe),
        *_quantize(recipe),
        *_data(recipe),
        *_stages(recipe),
        *_trainer(recipe),
        *_evaluation(recipe),
    ]


def _choice(key: str, value: str, allowed: tuple[str, ...]) -> Iterator[str]:
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{key}: {value!r} is none of {', '.join(allowed)}{hint}"


def _positive(section: object, prefix: str, *keys: str) -> Iterator[str]:
    for key in keys:
        if getattr(section, key) <= 0:
            yield f"{prefix}.{key}: {getattr(section, key)} must be above 0"


def _model(recipe: Recipe) -> Iterator[str]:
    model = recipe.model
    if sum(way is not None for way in (model.backbone, model.scratch, model.pretrained)) != 1:
        yield "model: name a backbone, or a pretrained model, or describe a new one under scratch"
    if model.pretrained is not None:
        yield from _path("model.pretrained", model.pretrained)
        if model.patchifier is not None:
            yield "model.patchifier: the pretrained model brings its own; leave it out"
    if model.chat is not None:
        yield from _choice("model.chat", model.chat, CHATS)
    if model.backbone is not None:
        yield from _backbone(model.backbone)
    if model.scratch is not None:
        yield from _positive(
            model.scratch,
            "model.scratch",
            *("layers", "hidden_size", "heads", "kv_heads", "ffn_size", "vocab_size"),
        )
        if model.scratch.tokenizer_data not in recipe.data:
            yield f"model.scratch.tokenizer_data: no data set {model.scratch.tokenizer_data!r}"
        if model.scratch.kv_heads > 0 and model.scratch.heads % model.scratch.kv_heads:
            yield "model.scratch.heads: must be a multiple of kv_heads"
        if model.scratch.heads > 0 and model.scratch.hidden_size % (2 * model.scratch.heads):
            yield "model.scratch.hidden_size: must be a multiple of 2 x heads"
    yield from _patchifier(recipe)
    yield from _placements(recipe)


def _quantize(recipe: Recipe) -> Iterator[str]:
    """Rounded weights are frozen, are made of ready ones, and are no kernel's own business."""
    scheme, trainer = recipe.model.quantize, recipe.trainer
    yield from _choice("model.quantize", scheme, QUANTIZE)
    if scheme == "none" or scheme not in QUANTIZE:
        return
    instead = "or set model.quantize=none"
    if recipe.model.scratch is not None:
        yield "model.quantize: train a new model in a recipe of its own, and name it as backbone"
    if trainer.kernel == "grouped":
        yield f"trainer.kernel: {trainer.kernel} does not read {scheme}; use gathered, {instead}"
    if trainer.strategy.startswith("mono_fsdp"):
        sharded = f"trainer.strategy: {trainer.strategy} does not shard {scheme}"
        yield f"{sharded}; use mono_ddp, {instead}"
    for name, section in recipe.stages.items():
        for word in section.train:
            if set(ALIASES.get(word, (word,))) & set(QUANTISABLE):
                yield (
                    f"stages.{name}.train: {word!r} holds text matrices, which are frozen in "
                    f"{scheme}; leave it out, {instead}"
                )


def _backbone(name: str) -> Iterator[str]:
    if name.startswith("recipe:"):
        from lightning_mono.recipe.load import find_recipe

        try:
            find_recipe(name.removeprefix("recipe:"))
        except RecipeError as error:
            yield f"model.backbone: {error}"
    else:
        yield from _path("model.backbone", name)


def _path(key: str, name: str) -> Iterator[str]:
    """What reads like a path has to be there; whether a hub has a model, only the hub knows."""
    is_path = name.endswith(".gguf") or name.startswith((".", "/", "~"))
    if is_path and not Path(name).expanduser().exists():
        yield f"{key}: {name} does not exist"


def _patchifier(recipe: Recipe) -> Iterator[str]:
    section = recipe.model.patchifier
    if section is None:
        return
    yield from _choice("model.patchifier.kind", section.kind, PATCHIFIERS)
    yield from _positive(section, "model.patchifier", "patch_size", "width", "merge")
    yield from _positive(recipe.image, "image", "size", "min_tiles", "max_tiles")
    if recipe.image.min_tiles > recipe.image.max_tiles:
        yield f"image.min_tiles: {recipe.image.min_tiles} is more than image.max_tiles"
    side = section.patch_size * section.merge
    if side > 0 and recipe.image.size % side:
        yield (
            f"image.size: {recipe.image.size} is no multiple of patch_size x merge = {side}; "
            f"{max(1, recipe.image.size // side) * side} is"
        )
    if section.vit is not None:
        yield from _vit(section, section.vit)


def _vit(section: PatchifierSection, vit: VitSection) -> Iterator[str]:
    key = "model.patchifier.vit"
    if section.kind != "vit":
        yield f"{key}: kind {section.kind} has no transformer; set model.patchifier.kind=vit"
    yield from _choice(f"{key}.norm", vit.norm, NORMS)
    yield from _positive(vit, key, "layers", "heads", "mlp_ratio", "eps")
    if vit.heads > 0 and section.width % vit.heads:
        yield f"{key}.heads: {vit.heads} heads do not divide a width of {section.width}"
    if vit.pretrained is not None:
        yield from _path(f"{key}.pretrained", vit.pretrained)


def _placements(recipe: Recipe) -> Iterator[str]:
    """Checks the words; against the number of layers where the recipe itself says it."""
    from lightning_mono.placement import layers_of

    layers = recipe.model.scratch.layers if recipe.model.scratch else 10**6
    for kind in ("ffn", "attention", "norms"):
        try:
            layers_of(getattr(recipe.model.experts, kind), layers)
        except ValueError as error:
            yield f"model.experts.{kind}: {error}"


def _data(recipe: Recipe) -> Iterator[str]:
    from lightning_mono.recipe.resolve import merged_image

    for name, section in recipe.data.items():
        key = f"data.{name}"
        if not section.sources:
            yield f"{key}.sources: empty; a data set needs at least one source"
        yield from _positive(section, key, "sequence_length", "batch_size")
        if section.batch_size > 0 and section.batch_size % max(1, recipe.trainer.devices):
            yield f"{key}.batch_size: must be a multiple of trainer.devices"
        yield from _choice(f"{key}.loss", section.loss, ("token", "sample", "square"))
        if section.workers < 0:
            yield f"{key}.workers: must be 0 or more"
        if section.tokens_per_sample is not None and not section.tokens_per_sample > 0:
            yield f"{key}.tokens_per_sample: {section.tokens_per_sample} must be above 0"
        if section.visual_share is not None and not 0 <= section.visual_share <= 1:
            yield f"{key}.visual_share: {section.visual_share} must be between 0 and 1"
        if section.image != TilesSection():
            yield from _tiles(f"{key}.image", merged_image(recipe, name))
        if section.jpeg is not None:
            yield from _jpeg(f"{key}.jpeg", section.jpeg)
        for source_name, source in section.sources.items():
            yield from _source(f"{key}.sources.{source_name}", source)


def _tiles(key: str, image: ImageSection) -> Iterator[str]:
    yield from _positive(image, key, "min_tiles", "max_tiles")
    if image.min_tiles > image.max_tiles:
        yield f"{key}.min_tiles: {image.min_tiles} is more than max_tiles, {image.max_tiles}"


def _jpeg(key: str, qualities: list[int]) -> Iterator[str]:
    if len(qualities) != 2 or not 1 <= qualities[0] <= qualities[-1] <= 100:
        yield f"{key}: {qualities} is no range of qualities from 1 to 100; write [75, 100]"


def _source(key: str, source: SourceSection) -> Iterator[str]:
    if (source.source is None) == (source.path is None):
        yield f"{key}: name a source or a path; one of the two"
    if source.source is not None:
        yield from _choice(f"{key}.source", source.source, SOURCES)
        if source.source in OF_FILES and source.options.get("path") is None:
            yield f"{key}.options.path: {source.source} needs the path of its files"
    if source.weight <= 0:
        yield f"{key}.weight: {source.weight} must be above 0"


def _started(path: Path) -> bool:
    """Whether there is such a checkpoint file, or RUN/STAGE has ended."""
    if path.suffix == ".ckpt":
        return path.is_file()
    ends = (path.parent / "checkpoints").glob(f"stage={glob.escape(path.name)}-step=*.ckpt")
    return any(ends)


def _there(path: str) -> bool:
    """Whether a path is there, or is a pattern, which is looked at when it is read."""
    return bool(re.search(r"[*?{\[]", path)) or Path(path).expanduser().exists()


def _prepared(key: str, path: str) -> Iterator[str]:
    """A folder on this machine holds chunks; what an object store has, only the store knows."""
    if "://" in path or (Path(path) / "index.json").is_file():
        return
    inside = Path(path) / "train"
    hint = "; prepare it with lightning-mono prepare"
    if (inside / "index.json").is_file():
        hint = f"; {inside} does"
    yield f"{key}: {path} holds no prepared chunks (no index.json){hint}"


def needs(recipe: Recipe) -> Iterator[str]:
    """What a sound recipe still lacks before it can run: data and weights that are not there."""
    start = recipe.model.init_from
    if start is not None and not _started(Path(start).expanduser()):
        yield f"model.init_from: {start} is not there; run that recipe up to this stage first"
    sources = {
        f"data.{name}.sources.{source_name}": source
        for name, section in recipe.data.items()
        for source_name, source in section.sources.items()
    }
    if recipe.evaluation.retention_source is not None:
        sources["evaluation.retention_source"] = recipe.evaluation.retention_source
    for key, source in sources.items():
        path = source.options.get("path")
        if source.source is not None and path is not None and not _there(path):
            yield f"{key}.options.path: {path} does not exist"
        if source.path is not None:
            yield from _prepared(f"{key}.path", source.path)


def _stages(recipe: Recipe) -> Iterator[str]:
    from lightning_mono.recipe.resolve import merged_optim

    if not recipe.stages:
        yield "stages: empty; a recipe needs at least one stage"
    for name, section in recipe.stages.items():
        key = f"stages.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            yield f"{key}: use letters, digits, '_', '-' and '.' in a stage's name"
        try:
            Duration.parse(section.duration)
        except ValueError as error:
            yield f"{key}.duration: {error}"
        if not section.train:
            yield f"{key}.train: empty; a stage that trains nothing does nothing"
        for word in section.train:
            yield from _choice(f"{key}.train", word, (*GROUPS, *ALIASES))
        for word in section.lr_scale:
            yield from _choice(f"{key}.lr_scale", word, tuple(GROUPS))
        yield from _choice(f"{key}.data", section.data, tuple(recipe.data))
        yield from _choice(f"{key}.optimizer_state", section.optimizer_state, ("keep", "fresh"))
        yield from _accumulate(recipe, key, section)
        try:
            optim = merged_optim(recipe, name)
        except RecipeError as error:
            yield str(error)
            continue
        yield from _optimizer(recipe, f"{key}.optim", optim)
        yield from _choice(f"{key}.optim.schedule", optim.schedule, SCHEDULES)
        yield from _optim(f"{key}.optim", optim)
        yield from _trainable(recipe, name)


def _accumulate(recipe: Recipe, key: str, section: StageSection) -> Iterator[str]:
    """Each device computes the same number of parts, none of them empty."""
    if section.accumulate < 1:
        yield f"{key}.accumulate: {section.accumulate} must be 1 or more"
    elif section.data in recipe.data and recipe.trainer.devices > 0:
        rows = recipe.data[section.data].batch_size // recipe.trainer.devices
        if rows % section.accumulate:
            yield (
                f"{key}.accumulate: {section.accumulate} parts of {rows} sequences a device are "
                f"not equal; make data.{section.data}.batch_size a multiple of "
                f"{section.accumulate * recipe.trainer.devices}"
            )


def _optimizer(recipe: Recipe, key: str, optim: Optim) -> Iterator[str]:
    """There is one for all stages; the one in 8 bits computes in fp32, on whole tensors."""
    yield from _choice(f"{key}.name", optim.name, OPTIMIZERS)
    if optim.name != recipe.optim.name:
        yield f"{key}.name: one optimizer serves all stages; set optim.name"
    trainer = recipe.trainer
    if optim.name == "adamw8bit" and trainer.precision == "64-true":
        yield f"{key}.name: adamw8bit computes in fp32; with trainer.precision=64-true use adamw"
    if optim.name == "adamw8bit" and trainer.strategy.startswith("mono_fsdp"):
        yield f"{key}.name: adamw8bit needs whole tensors; with {trainer.strategy} use adamw"


def _optim(key: str, optim: Optim) -> Iterator[str]:
    """Numbers that the optimizer would refuse, or that would undo training."""
    if not optim.lr > 0:
        yield f"{key}.lr: {optim.lr} must be above 0"
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        yield f"{key}.betas: {list(optim.betas)} must be two numbers from 0 to below 1"
    for name in ("eps", "weight_decay", "grad_clip", "warmup_steps"):
        if not getattr(optim, name) >= 0:
            yield f"{key}.{name}: {getattr(optim, name)} must be 0 or more"
    for name in ("decay_share", "layer_decay"):
        if not 0 < getattr(optim, name) <= 1:
            yield f"{key}.{name}: {getattr(optim, name)} must be above 0, and 1 at most"
    if not 0 <= optim.min_lr_ratio <= 1:
        yield f"{key}.min_lr_ratio: {optim.min_lr_ratio} must be between 0 and 1"


def _trainable(recipe: Recipe, stage: str) -> Iterator[str]:
    """Groups that the recipe's own model section rules out."""
    if recipe.model.pretrained is not None:
        return
    section = recipe.model.patchifier
    lacking = {
        "patchifier": section is None,
        **dict.fromkeys(
            ("patchifier.vit", "patchifier.projector"), section is None or section.kind != "vit"
        ),
        **{
            f"experts.{kind}": getattr(recipe.model.experts, kind) in ("none", [])
            for kind in ("ffn", "attention", "norms")
        },
    }
    for word in recipe.stages[stage].train:
        if lacking.get(word):
            yield f"stages.{stage}.train: the model has no {word!r}; see the model section"


def _trainer(recipe: Recipe) -> Iterator[str]:
    trainer = recipe.trainer
    yield from _choice("trainer.strategy", trainer.strategy, STRATEGIES)
    yield from _choice("trainer.kernel", trainer.kernel, KERNELS)
    if "16" in trainer.precision and not trainer.precision.startswith("bf16"):
        yield "trainer.precision: fp16 overflows in these models; use bf16-mixed or 32-true"
    else:
        yield from _choice("trainer.precision", trainer.precision, PRECISIONS)
    yield from _positive(trainer, "trainer", "devices", "checkpoint_every", "log_every")
    if trainer.attention_every < 0:
        yield f"trainer.attention_every: {trainer.attention_every} must be 0 or more"
    if trainer.ema is not None and not 0 <= trainer.ema < 1:
        yield f"trainer.ema: {trainer.ema} must be from 0 to below 1; leave it out for none"
    if trainer.max_steps is not None and trainer.max_steps <= 0:
        yield "trainer.max_steps: must be above 0; leave it out to run the whole schedule"
    if trainer.devices > 1 and trainer.strategy == "mono_single":
        yield "trainer.strategy: mono_single runs on one device; use mono_ddp"


def _evaluation(recipe: Recipe) -> Iterator[str]:
    section = recipe.evaluation
    if section.benchmark is not None:
        yield from _benchmark(section.benchmark)
    if section.retention_source is not None:
        yield from _source("evaluation.retention_source", section.retention_source)
    if section.retention_tokens < RETENTION_TOKENS:
        yield (
            f"evaluation.retention_tokens: {section.retention_tokens} must be {RETENTION_TOKENS} "
            "or more, a row of text"
        )
    if section.retention_every < 0:
        yield f"evaluation.retention_every: {section.retention_every} must be 0 or more"
    if section.question_only is not None:
        from lightning_mono.recipe.load import find_recipe

        if section.benchmark is None:
            yield "evaluation.question_only: needs evaluation.benchmark to be compared on"
        try:
            find_recipe(section.question_only)
        except RecipeError as error:
            yield f"evaluation.question_only: {error}"


def _benchmark(section: BenchmarkSection) -> Iterator[str]:
    key = "evaluation.benchmark"
    yield from _choice(f"{key}.source", section.source, SOURCES)
    yield from _positive(section, key, "batch_size", "max_new_tokens")
    if section.limit is not None and section.limit <= 0:
        yield f"{key}.limit: must be above 0; leave it out to ask every question"
