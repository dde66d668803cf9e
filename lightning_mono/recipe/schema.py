"""A recipe's sections: every key with its type, its default and what it means.

Imports neither torch nor Lightning, so that reading and checking recipes is instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"


@dataclass
class VitSection:
    """A vision transformer; by default of InternViT-300M's shape."""

    layers: int = 24
    heads: int = 16
    """Of attention; they divide the patchifier's width."""
    mlp_ratio: float = 4.0
    """Inner channels of an MLP over the width."""
    norm: str = "layer_norm"
    """layer_norm or rms_norm."""
    qk_norm: bool = False
    """Norm queries and keys."""
    qkv_bias: bool = True
    eps: float = 1e-6
    """Of the norms."""
    layer_scale: float = 0.1
    """What the factors on attention and MLP start from."""
    pretrained: str | None = None
    """Weights to begin with: an InternViT, or an InternVL that has one, as a folder or a hub id."""


@dataclass
class PatchifierSection:
    """How pixels become visual tokens."""

    kind: str = "conv"
    """conv: strided convolution, position table, pixel shuffle, MLP (Mono-InternVL). linear: one
    matrix on raw pixels (Fuyu, SOLO). two_conv: two strided convolutions (EVEv2). vit: conv with a
    vision transformer before the shuffle (InternVL): the modular twin."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    width: int = 1024
    """Channels of a patch embedding; of no meaning for linear."""
    merge: int = 2
    """Patches merged along each side: merge**2 patches make one token."""
    vit: VitSection | None = None
    """The transformer of kind vit; InternViT-300M's shape where it is left out."""


@dataclass
class ExpertsSection:
    """Which layers own visual weights: all, none, first:N, last:N, every:N, A-B, or a list."""

    ffn: Any = "all"
    attention: Any = "none"
    norms: Any = "none"


@dataclass
class ScratchSection:
    """A backbone trained from scratch: its shape, and the text its tokenizer is learnt from."""

    layers: int = MISSING
    hidden_size: int = MISSING
    heads: int = MISSING
    kv_heads: int = MISSING
    ffn_size: int = MISSING
    vocab_size: int = MISSING
    """Size of the byte-level BPE that is learnt from the text."""
    tokenizer_data: str = MISSING
    """Name of the data set in ``data`` whose text the tokenizer is learnt from."""
    rope_theta: float = 10_000.0
    max_positions: int = 2048


@dataclass
class ModelSection:
    """The language model, and what makes it see."""

    backbone: str | None = None
    """smollm2-135m, a Hugging Face-layout folder, a GGUF file, a hub id, or recipe:NAME."""
    scratch: ScratchSection | None = None
    """Instead of a backbone: a new language model."""
    pretrained: str | None = None
    """Instead of a backbone: a monolithic model to train further, as a folder in the published
    layout, a run, or a hub id. Its patchifier comes with it, and so do its experts; layers named
    under experts that lack them get new ones, copies of their text weights."""
    init_from: str | None = None
    """The weights to begin with: those that another run's stage ended with, as RUN/STAGE
    (runs/evip/S1.2), or those of a .ckpt file. Experts that it lacks are copies of text weights."""
    patchifier: PatchifierSection | None = None
    """Leave out for a model that reads text only."""
    experts: ExpertsSection = field(default_factory=ExpertsSection)
    quantize: str = "none"
    """nf4 or int8: text matrices of all layers are kept in 4 or 8 bits while training, frozen; the
    model that is exported has them in full, as the backbone or pretrained model does."""
    chat: str | None = None
    """Chat template: internlm2-chat, chatml, llama3, zephyr or plain; by default the backbone's."""
    system: str | None = None
    """System message; by default the chat template's own, empty for none."""


@dataclass
class ImageSection:
    """Image tiles."""

    size: int = 448
    """Side of a tile in pixels."""
    min_tiles: int = 1
    """At least so many tiles an image, the thumbnail not counted."""
    max_tiles: int = 1
    """At most so many tiles an image (InternVL dynamic tiling); 1 resizes to one square."""
    thumbnail: bool = False
    """Add the whole picture as a last tile where there are several."""


@dataclass
class OptimSection:
    """Optimizer and learning rate; a stage may override single keys."""

    name: str = "adamw"
    """adamw, or adamw8bit: moments in 8 bits (bitsandbytes); the same in all stages."""
    lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    weight_decay: float = 0.05
    grad_clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    warmup_steps: int = 0
    schedule: str = "constant"
    """After the warm-up, over each stage: constant; cosine; or wsd, constant and at last down."""
    min_lr_ratio: float = 0.0
    """Where cosine and wsd end, as a share of lr."""
    decay_share: float = 0.1
    """The part of the stage over which wsd goes down."""
    layer_decay: float = 1.0
    """Factor on the rate for each layer below the last; patchifier and embeddings are below all."""


@dataclass
class SourceSection:
    """Where samples come from."""

    source: str | None = None
    """A built-in source (lightning-mono ls names them)."""
    path: str | None = None
    """Or a folder already prepared into chunks."""
    split: str = "train"
    weight: float = 1.0
    """Share of the mixture, relative to the other sources."""
    optional: bool = False
    """Go on without it, saying so, where it cannot be had."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the source itself."""


@dataclass
class TilesSection:
    """What a data set changes of the recipe's ``image``; what is left out stays as it is there."""

    min_tiles: int | None = None
    max_tiles: int | None = None
    thumbnail: bool | None = None


@dataclass
class DataSection:
    """A mixture of sources, packed into sequences."""

    sources: dict[str, SourceSection] = field(default_factory=dict)
    sequence_length: int = 2048
    """Tokens in a packed sequence, at most."""
    batch_size: int = 8
    """Sequences in an optimizer step, over all devices."""
    loss: str = "token"
    """What a sample of x targets weighs: token x, sample 1, square sqrt(x)."""
    workers: int = 0
    """Processes that prepare, decode and tokenize; the order of samples does not depend on it."""
    image: TilesSection = field(default_factory=TilesSection)
    """Image budget of this data set."""
    jpeg: list[int] | None = None
    """[75, 100]: compress each tile anew, in a quality drawn between the two (InternVL)."""
    tokens_per_sample: float | None = None
    """For `plan` where the data are not prepared: tokens of a sample on the average."""
    visual_share: float | None = None
    """For `plan` where the data are not prepared: image tokens among all, from 0 to 1."""


@dataclass
class StageSection:
    """One stage of the curriculum."""

    duration: str = MISSING
    """300 steps, 900_000 samples, 2_000_000 tokens or 2 epochs."""
    train: list[str] = MISSING
    """Parameter groups that learn: patchifier, experts.ffn, experts.attention, attention, ...;
    of kind vit also patchifier.vit and patchifier.projector alone."""
    data: str = MISSING
    """Name of a data set in ``data``."""
    optim: dict[str, Any] = field(default_factory=dict)
    """Keys of ``optim`` that differ in this stage."""
    lr_scale: dict[str, float] = field(default_factory=dict)
    """Factor on the learning rate, by parameter group."""
    accumulate: int = 1
    """Parts that a step's batch is computed in, one after the other, to save memory."""
    optimizer_state: str = "keep"
    """keep: what goes on training keeps its moments; fresh: the stage begins without any."""


@dataclass
class TrainerSection:
    """How the run is executed."""

    strategy: str = "auto"
    """auto, mono_single, mono_ddp, or mono_fsdp2 to share the weights between the devices."""
    kernel: str = "auto"
    """How tokens reach their experts: auto, triton, triton_recompute, grouped, gathered or
    masked_dense."""
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    """32-true, bf16-mixed or bf16-true; fp16 overflows in these models."""
    max_steps: int | None = None
    """Stop after so many steps of the whole schedule."""
    checkpoint_every: int = 200
    """Steps between checkpoints; each stage's end is saved as well."""
    log_every: int = 10
    attention_every: int = 50
    """Steps between readings of what attention falls on; 0 reads none."""
    activation_checkpointing: bool = False
    """Compute the layers' inner values again on the way back instead of keeping them."""
    ema: float | None = None
    """Export averaged weights: average += (1 - ema)(weight - average) at each step, e.g. 0.999."""


@dataclass
class BenchmarkSection:
    """Questions with gold answers, answered greedily and compared."""

    source: str = MISSING
    split: str = "test"
    options: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    """Only the first N questions; the report says so."""
    batch_size: int = 64
    max_new_tokens: int = 8


@dataclass
class EvaluationSection:
    """What is measured when training is done; the report shows it."""

    benchmark: BenchmarkSection | None = None
    question_only: str | None = None
    """A recipe that trains on the same questions without the images, to compare with."""
    retention_source: SourceSection | None = None
    """Held-out text on which the model is compared with what it was, before and after each stage:
    perplexity, KL, agreement."""
    retention_tokens: int = 4096
    """Tokens of it, at most; a row of 128 at least."""
    retention_every: int = 0
    """Also compare whenever so many steps are done; 0: before and after each stage alone."""
    quiz: bool = False
    """Also the four-way quiz of general knowledge (needs a Debian package)."""


@dataclass
class Recipe:
    """A whole experiment."""

    name: str = MISSING
    seed: int = 0
    out: str = "runs/${name}"
    """Run folder."""
    model: ModelSection = field(default_factory=ModelSection)
    image: ImageSection = field(default_factory=ImageSection)
    optim: OptimSection = field(default_factory=OptimSection)
    data: dict[str, DataSection] = field(default_factory=dict)
    stages: dict[str, StageSection] = field(default_factory=dict)
    trainer: TrainerSection = field(default_factory=TrainerSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
