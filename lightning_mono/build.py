"""From a recipe to the objects it describes: backbone, model, renderer, data, schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lightning_mono.assets import cache_dir
from lightning_mono.backbones import Backbone, load_backbone
from lightning_mono.backbones.config import DecoderConfig, tensor_shapes
from lightning_mono.backbones.hub import is_hub_id, local_copy
from lightning_mono.backbones.huggingface import token_ids
from lightning_mono.backbones.tokenizer import read_tokenizer, train_bpe
from lightning_mono.backbones.tokenizer_files import TokenizerFiles
from lightning_mono.checkpoints.config import read_config
from lightning_mono.checkpoints.folder import load_model
from lightning_mono.checkpoints.locate import model_folder
from lightning_mono.checkpoints.tower import load_tower
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.loader import StageData
from lightning_mono.data.prepare import prepare
from lightning_mono.data.render import Renderer
from lightning_mono.data.sources import SourceSpec
from lightning_mono.data.store import Store
from lightning_mono.errors import AssetError, DataError, RecipeError
from lightning_mono.inference import chat_template, make_renderer
from lightning_mono.model import (
    ExpertsConfig,
    MonoConfig,
    MonoModel,
    PatchifierConfig,
    VitConfig,
)
from lightning_mono.model.graft import match_scale, with_experts
from lightning_mono.model.meta import on_meta
from lightning_mono.model.patchifier import VitPatchifier
from lightning_mono.model.published import PUBLISHED
from lightning_mono.params import grouped
from lightning_mono.placement import layers_of
from lightning_mono.recipe import Recipe, build_stages, load_recipe
from lightning_mono.recipe.resolve import merged_image
from lightning_mono.recipe.schema import ScratchSection, SourceSection, VitSection
from lightning_mono.stages import Duration, StageSchedule

Note = Callable[[str], None]


@dataclass(frozen=True)
class Mono:
    """A model as a recipe describes it, before any training."""

    model: MonoModel
    renderer: Renderer
    chat: str
    pad_id: int
    files: TokenizerFiles


def build_model(recipe: Recipe, backbone: Backbone) -> Mono:
    """Grafts patchifier and experts onto a backbone; random parts follow the recipe's seed."""
    torch.manual_seed(recipe.seed)
    patchifier = patchifier_config(recipe)
    experts = experts_config(recipe, backbone.config.layers)
    model = MonoModel.graft(backbone, patchifier=patchifier, experts=experts)
    vit = recipe.model.patchifier.vit if recipe.model.patchifier else None
    if vit is not None and vit.pretrained is not None:
        assert isinstance(model.patchifier, VitPatchifier)
        load_tower(model.patchifier, model_folder(vit.pretrained))
        match_scale(model)
    chat = recipe.model.chat or backbone.chat
    files = TokenizerFiles.of_backbone(backbone)
    return Mono(
        model,
        recipe_renderer(recipe, model, backbone.tokenizer, chat),
        chat,
        backbone.pad_id,
        files,
    )


def pretrained_model(recipe: Recipe) -> Mono:
    """A monolithic model to train further, with new experts where the recipe asks for more.

    Raises:
        CheckpointError, AssetError: the model cannot be had.
        RecipeError: a layer that it does not have.
    """
    assert recipe.model.pretrained is not None
    folder = model_folder(recipe.model.pretrained)
    model = load_model(folder, dtype=torch.float32, image_size=recipe.image.size)
    layers = model.config.decoder.layers
    if model.config.patchifier is not None:
        model = with_experts(model, _placed(recipe, layers))
    tokenizer = read_tokenizer(folder)
    chat = recipe.model.chat or chat_template(folder, model.config.decoder.family)
    pad_id = next(iter(token_ids(folder, "pad", tokenizer)), 0)
    renderer = recipe_renderer(recipe, model, tokenizer, chat)
    return Mono(model, renderer, chat, pad_id, TokenizerFiles.of_folder(folder))


def recipe_renderer(recipe: Recipe, model: MonoModel, tokenizer: Tokenizer, chat: str) -> Renderer:
    """What turns a recipe's samples into the tokens of its model."""
    section = recipe.image
    images = ImageProcessor(
        section.size, section.max_tiles, section.thumbnail, min_tiles=section.min_tiles
    )
    return make_renderer(model, tokenizer, chat, images, system=recipe.model.system)


def full_weights(recipe: Recipe, language: Path | None) -> Mapping[str, torch.Tensor]:
    """The weights that a recipe's model starts from, read anew, by their names in it.

    Args:
        language: the model that another recipe made as this one's backbone, if one did.
    """
    if recipe.model.pretrained is not None:
        return load_model(model_folder(recipe.model.pretrained), dtype=torch.float32).state_dict()
    return (load_backbone(str(language)) if language else named_backbone(recipe)).tensors


def patchifier_config(recipe: Recipe) -> PatchifierConfig | None:
    section = recipe.model.patchifier
    if section is None:
        return None
    return PatchifierConfig(
        recipe.image.size,
        section.patch_size,
        section.width,
        section.merge,
        kind=section.kind,  # type: ignore[arg-type]
        vit=_vit_config(section.vit) if section.vit else None,
    )


def _vit_config(section: VitSection) -> VitConfig:
    shape = {key: value for key, value in vars(section).items() if key != "pretrained"}
    return VitConfig(**shape)


def experts_config(recipe: Recipe, layers: int) -> ExpertsConfig:
    """Resolves the placement words; a model without eyes has no visual experts.

    Raises:
        RecipeError: a layer that the backbone does not have.
    """
    return ExpertsConfig() if recipe.model.patchifier is None else _placed(recipe, layers)


def _placed(recipe: Recipe, layers: int) -> ExpertsConfig:
    chosen = {}
    for kind in ("ffn", "attention", "norms"):
        try:
            chosen[kind] = layers_of(getattr(recipe.model.experts, kind), layers)
        except ValueError as error:
            raise RecipeError(f"model.experts.{kind}: {error}") from error
    return ExpertsConfig(**chosen)


# -- backbones --------------------------------------------------------------------------------


def named_backbone(recipe: Recipe) -> Backbone:
    """The recipe's ready-made backbone (not one that another recipe makes)."""
    assert recipe.model.backbone is not None
    return load_backbone(recipe.model.backbone)


def scratch_backbone(recipe: Recipe, stores: Mapping[str, list[Store]]) -> Backbone:
    """A new language model: tokenizer learnt from the text, weights drawn under the seed."""
    section = recipe.model.scratch
    assert section is not None
    texts = (
        text
        for store in stores[section.tokenizer_data]
        for sample in map(store.__getitem__, range(len(store)))
        for text in (sample.text, *(f" {e.question} {e.answer}" for e in sample.exchanges))
    )
    tokenizer = train_bpe(texts, section.vocab_size)
    config = scratch_config(section, tokenizer)
    ids = tokenizer.get_vocab()
    end, end_of_text = ids["<|im_end|>"], ids["<|endoftext|>"]
    return Backbone(
        name=recipe.name,
        config=config,
        tensors=_random_tensors(config, recipe.seed),
        tokenizer=tokenizer,
        chat=recipe.model.chat or "plain",
        bos_id=None,
        eos_id=end,
        pad_id=end_of_text,
        stop_ids=(end, end_of_text),
    )


def scratch_config(section: ScratchSection, tokenizer: Tokenizer | None = None) -> DecoderConfig:
    """The shape of a new language model, in the Llama family."""
    return DecoderConfig(
        family="llama",
        vocab_size=tokenizer.get_vocab_size() if tokenizer else section.vocab_size,
        hidden_size=section.hidden_size,
        layers=section.layers,
        heads=section.heads,
        kv_heads=section.kv_heads,
        head_dim=section.hidden_size // section.heads,
        ffn_size=section.ffn_size,
        rms_eps=1e-5,
        rope_theta=section.rope_theta,
        rope_scaling=None,
        max_positions=section.max_positions,
        tied=True,
    )


def _random_tensors(config: DecoderConfig, seed: int) -> dict[str, torch.Tensor]:
    """Normal with variance 1 / width, smaller where a layer writes to the residual stream.

    GPT-2's fixed 0.02 is too small for narrow models: at width 192 they learn several times slower.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        if "norm" in name:
            tensors[name] = torch.ones(shape)
            continue
        writes = ".out." in name or ".down." in name
        std = (config.hidden_size * (2 * config.layers if writes else 1)) ** -0.5
        tensors[name] = torch.randn(shape, generator=generator) * std
    return tensors


# -- data -------------------------------------------------------------------------------------


def open_sources(
    sources: Mapping[str, SourceSection], where: str, note: Note, workers: int = 0
) -> list[tuple[Store, float]]:
    """Prepares what is not prepared yet; leaves out optional sources that cannot be had.

    Args:
        sources: of one data set.
        where: what they are called in messages.
        note: is told what was left out.
        workers: processes that prepare; 0 prepares here.

    Raises:
        DataError, AssetError: a source that is not optional cannot be had.
    """
    opened = []
    for name, section in sources.items():
        try:
            opened.append((open_source(section, workers), section.weight))
        except (AssetError, DataError) as error:
            if not section.optional:
                raise
            note(f"{where}.sources.{name}: left out: {error}")
    if not opened:
        raise DataError(f"{where}: none of its sources can be had")
    return opened


def open_source(section: SourceSection, workers: int = 0) -> Store:
    if section.path is not None:
        return Store(section.path)
    assert section.source is not None
    spec = SourceSpec(section.source, section.split, section.options)
    return Store(prepare(spec, cache_dir() / "prepared", workers=workers))


def stage_data(
    recipe: Recipe, name: str, sources: list[tuple[Store, float]], renderer: Renderer, pad_id: int
) -> StageData:
    """One of a recipe's data sets, packed for this model within its own image budget."""
    section = recipe.data[name]
    if renderer.images is not None:
        image = merged_image(recipe, name)
        renderer = renderer.within(
            replace(
                renderer.images,
                min_tiles=image.min_tiles,
                max_tiles=image.max_tiles,
                thumbnail=image.thumbnail,
            )
        )
    return StageData(
        sources,
        renderer,
        sequence_length=section.sequence_length,
        batch_size=section.batch_size // recipe.trainer.devices,
        seed=recipe.seed,
        pad_id=pad_id,
        loss=section.loss,  # type: ignore[arg-type]
        jpeg=(section.jpeg[0], section.jpeg[1]) if section.jpeg else None,
        workers=section.workers,
    )


# -- schedule ---------------------------------------------------------------------------------


def build_schedule(
    recipe: Recipe, model: MonoModel, data: Mapping[str, StageData]
) -> StageSchedule:
    """The recipe's stages with their steps counted and their groups checked."""

    def steps_of(name: str, duration: Duration) -> int:
        if duration.unit == "steps":
            return int(duration.value)
        if duration.unit == "tokens":
            plan = data[name].plan
            return plan.batches_for_tokens(int(duration.value), recipe.trainer.devices)
        samples = duration.value
        if duration.unit == "epochs":
            samples *= data[name].samples
        return data[name].plan.batches_for(math.ceil(samples), recipe.trainer.devices)

    return build_stages(recipe, group_names(model), steps_of)


def group_names(model: MonoModel) -> Iterable[str]:
    return grouped(name for name, _ in model.named_parameters())


def check_on_meta(recipe: Recipe) -> MonoModel | None:
    """Builds the model without weights and checks placements and stages against it.

    Returns:
        The model on the meta device, or None where the backbone's shape is not known without
        fetching it.

    Raises:
        RecipeError: a placement or a stage that does not fit the model.
    """
    config = known_config(recipe)
    if config is None:
        return None
    with on_meta():
        model = MonoModel(config)
    build_stages(recipe, group_names(model), lambda _, duration: max(1, int(duration.value)))
    return model


def known_config(recipe: Recipe) -> MonoConfig | None:
    """What the recipe's model is made of, as far as it can be read without loading weights."""
    if recipe.model.pretrained is not None:
        config = _pretrained_config(recipe.model.pretrained)
        if config is None or config.patchifier is None:
            return config
        more = _placed(recipe, config.decoder.layers)
        return replace(config, experts=config.experts.joined(more))
    decoder = known_shape(recipe)
    if decoder is None:
        return None
    experts = experts_config(recipe, decoder.layers)
    return MonoConfig(decoder, patchifier_config(recipe), experts)


def _pretrained_config(name: str) -> MonoConfig | None:
    """Of a folder, or of a hub id whose copy is here or whose shape is known."""
    if not is_hub_id(name):
        return read_config(model_folder(name))[0]
    folder = local_copy(name)
    return PUBLISHED.get(name) if folder is None else read_config(folder)[0]


def known_shape(recipe: Recipe) -> DecoderConfig | None:
    """The backbone's shape as far as it can be read without loading weights."""
    from lightning_mono.backbones.peek import peek_config

    if recipe.model.scratch is not None:
        return scratch_config(recipe.model.scratch)
    name = recipe.model.backbone or ""
    if name.startswith("recipe:"):
        return known_shape(load_recipe(name.removeprefix("recipe:")))
    return peek_config(name)
