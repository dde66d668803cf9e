"""A decoder LLM in which each token is served by the weights of its modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mono.backbones.shards import SHARD_BYTES
from lightning_mono.model.attention import Context, Watch, attention_weights
from lightning_mono.model.batch import Batch
from lightning_mono.model.cache import Cache
from lightning_mono.model.config import ExpertsConfig, MonoConfig, PatchifierConfig
from lightning_mono.model.decoder import Block
from lightning_mono.model.experts import Experts, RMSNorm
from lightning_mono.model.linear import Linear, linear
from lightning_mono.model.mask import batch_mask
from lightning_mono.model.patchifier import build_patchifier
from lightning_mono.model.placeholder import placeholder_id
from lightning_mono.model.positions import document_lengths, rotary_tables
from lightning_mono.model.spans import Documents
from lightning_mono.model.wanted import Wanted

if TYPE_CHECKING:
    from lightning_mono.backbones import Backbone
    from lightning_mono.model.session import Session

FLOAT16 = "float16 overflows in these models and gives NaN; use bfloat16 or float32"


@dataclass
class MonoOutput:
    """What a forward pass gives.

    Attributes:
        logits: (batch, tokens, vocabulary).
        loss: mean cross entropy of the next token over labels that are not -100, or None.
        hidden_states: (batch, tokens, hidden) each: the embeddings, every layer's output, and
            last the output of the final norm (which stands for the last layer's).
        attentions: softmax weights by layer, (batch, heads, tokens, tokens) each, or None.
    """

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class MonoModel(nn.Module):
    """A monolithic multimodal LLM, in plain PyTorch.

    Without patchifier and experts it is the text LLM itself: the same modules, the same numbers.

    Attributes:
        config: what it is made of.
        entries: of the config.json it was loaded from; :meth:`save_pretrained` hands them on.
    """

    def __init__(self, config: MonoConfig) -> None:
        super().__init__()
        self.config = config
        self.entries: dict[str, Any] = {}
        decoder = config.decoder
        self.embed = nn.Embedding(decoder.vocab_size, decoder.hidden_size)
        self.patchifier = (
            build_patchifier(config.patchifier, decoder.hidden_size) if config.patchifier else None
        )
        self.layers = nn.ModuleList(Block(config, i) for i in range(decoder.layers))
        self.norm = RMSNorm(decoder.hidden_size, decoder.rms_eps)
        self.head = (
            None if decoder.tied else Linear(decoder.hidden_size, decoder.vocab_size, bias=False)
        )

    # -- building ---------------------------------------------------------------------------

    @classmethod
    def graft(
        cls,
        llm: Backbone | str | Path,
        *,
        patchifier: PatchifierConfig | Mapping[str, Any] | None = None,
        experts: ExpertsConfig | Mapping[str, Any] | None = None,
    ) -> MonoModel:
        """Turns a text LLM into a monolithic MLLM; see :func:`lightning_mono.model.graft.graft`."""
        from lightning_mono.model.graft import graft  # composition over this class

        return graft(llm, patchifier, experts)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        image_size: int | None = None,
    ) -> MonoModel:
        """Loads a model in the published layout: a folder, or an id on the Hugging Face hub.

        Nothing but JSON and safetensors is read, and no code of a checkpoint is ever run.

        Args:
            path: e.g. ``OpenGVLab/Mono-InternVL-2B``, a folder of :meth:`save_pretrained`, a run
                folder, or a text LLM in Hugging Face layout.
            dtype: of the weights, bfloat16 or float32; by default that of the files.
            image_size: side of a tile in pixels, where it is to differ from the checkpoint's: the
                position table is resized bicubically.

        Raises:
            CheckpointError: a file is missing, broken, or of a model that is not supported.
            AssetError: there is no such folder, and the hub did not give it.
        """
        from lightning_mono.checkpoints.folder import load_model
        from lightning_mono.checkpoints.locate import model_folder

        if dtype == torch.float16:
            raise ValueError(FLOAT16)
        return load_model(model_folder(path), dtype=dtype, image_size=image_size)

    def save_pretrained(self, folder: str | Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Writes config.json and weights in the layout of the published checkpoints.

        Args:
            shard_bytes: weights above this are written as several files with an index.

        Raises:
            CheckpointError: the folder cannot be written, or the layout cannot express the model.
        """
        from lightning_mono.checkpoints.folder import save_model

        save_model(self, Path(folder), shard_bytes=shard_bytes)

    def copy_experts_from_text(self) -> None:
        """Sets every visual expert to its layer's text weights."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.copy_from_text()

    # -- running ----------------------------------------------------------------------------

    def embeddings(self, batch: Batch) -> Tensor:
        """Word embeddings with visual tokens in their places: (batch, tokens, hidden)."""
        x = self.embed(batch.input_ids)
        if self.patchifier is None:
            if batch.layout.visual.count:
                raise ValueError("the model has no patchifier, but the batch has image tokens")
            return x
        if not (len(batch.pixel_values) or batch.layout.visual.count or torch.is_grad_enabled()):
            return x  # with gradients it is called on nothing, so that it gets some: zeros
        visual = self.patchifier(batch.pixel_values).flatten(0, 1)
        if visual.shape[0] != batch.layout.visual.count:
            raise ValueError(
                f"{batch.layout.visual.count} image tokens in the text, but "
                f"{batch.pixel_values.shape[0]} tiles give {visual.shape[0]}"
                + (f" (samples {', '.join(batch.samples[:3])})" if batch.samples else "")
            )
        flat = x.reshape(-1, x.shape[-1])
        return flat.index_copy(0, batch.layout.visual.index, visual.to(x.dtype)).view_as(x)

    def hidden(
        self,
        batch: Batch,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        hidden_states: list[Tensor] | None = None,
        watch: Watch | None = None,
        wanted: Wanted | None = None,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """Runs the decoder with its final norm: (batch, tokens, hidden), or (1, n, hidden) wanted.

        Args:
            mask: allowed pairs; by default those of the batch itself. Needed with a cache.
            cache: where keys and values are kept.
            hidden_states: a list to fill, a tensor a layer.
            watch: is shown what each layer attends with; the result is the same to the last bit.
            wanted: positions that are read; the last layer computes the outputs of these alone.
            embeddings: what :meth:`embeddings` gives, where it is there already.
        """
        spans = (
            batch.spans if mask is None and cache is None and self.device.type == "cpu" else None
        )
        if mask is None and cache is None and (spans is None or watch is not None):
            mask = batch_mask(batch)
        view: int | Tensor = batch.input_ids.shape[1] + (cache.length if cache else 0)
        decoder = self.config.decoder
        if batch.packed and decoder.rope_scaling and decoder.rope_scaling.kind == "dynamic":
            view = document_lengths(batch.positions, batch.documents)
        cos, sin = rotary_tables(decoder, batch.positions, view)
        documents = None if spans is None else Documents.of(spans, batch.branches)
        context = Context(batch.layout, cos, sin, mask, documents, cache, watch)
        x = self.embeddings(batch) if embeddings is None else embeddings
        if torch.float16 in (x.dtype, self._autocast_dtype()):
            raise ValueError(FLOAT16)
        last = len(self.layers) - 1
        for depth, layer in enumerate(self.layers):
            if hidden_states is not None:
                hidden_states.append(x)
            x = layer(x, context, wanted if depth == last else None)
        x = self.norm(x)
        if hidden_states is not None:
            hidden_states.append(x)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., hidden) -> (..., vocabulary). Ask only for the rows that are needed."""
        if self.head is None:
            return linear(hidden, self.embed.weight)
        return self.head(hidden)

    def head_parameters(self) -> list[nn.Parameter]:
        """What :meth:`logits` multiplies with."""
        return [*(self.embed if self.head is None else self.head).parameters()]

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        tiles_per_sample: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> MonoOutput:
        """Reads a padded batch and gives logits everywhere.

        Args:
            input_ids: (batch, tokens) int64, image tokens at their places.
            pixel_values: tiles of all samples in order, (tiles, 3, size, size).
            attention_mask: 1 where a token is real, 0 where it is padding on either side.
            labels: (batch, tokens), -100 where nothing is predicted; shifted in here.
            tiles_per_sample: (batch,) how many tiles are whose; checked where given.
            output_hidden_states, output_attentions: also return these; attentions of a long
                prompt are large, and `lightning_mono.attention` computes parts of them.
        """
        batch = self.batch(input_ids, pixel_values, attention_mask, tiles_per_sample)
        states: list[Tensor] | None = [] if output_hidden_states else None
        attentions: list[Tensor] = []

        def keep(layer: int, q: Tensor, k: Tensor, mask: Tensor | None) -> None:
            attentions.append(attention_weights(q, k, mask))

        watch = keep if output_attentions else None
        hidden = self.hidden(batch, hidden_states=states, watch=watch)
        logits = self.logits(hidden)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
            )
        return MonoOutput(
            logits,
            loss,
            tuple(states) if states is not None else None,
            tuple(attentions) if output_attentions else None,
        )

    def batch(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        tiles_per_sample: Tensor | None = None,
    ) -> Batch:
        """Makes a batch of one document a row from padded ids; the mask marks real tokens.

        Raises:
            ValueError: image tokens and tiles do not match, or the image placeholder's id is not
                known and does not follow from them.
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if pixel_values is None:
            size = self.config.patchifier.image_size if self.config.patchifier else 0
            pixel_values = torch.zeros(0, 3, size, size, device=input_ids.device)
        a_tile = self.config.patchifier.tokens_of(pixel_values) if self.config.patchifier else 0
        image_id = self.config.image_context_id
        if image_id is None and len(pixel_values) and a_tile:
            image_id = placeholder_id(input_ids, real.bool(), len(pixel_values) * a_tile, a_tile)
        batch = Batch.build(
            input_ids=input_ids,
            positions=(real.cumsum(1) - 1).clamp(min=0),
            documents=real.int(),
            branches=torch.zeros_like(input_ids, dtype=torch.int32),
            supervised=torch.zeros_like(input_ids, dtype=torch.bool),
            pixel_values=pixel_values,
            image_context_id=image_id,
            packed=False,
        )
        if tiles_per_sample is not None and self.config.patchifier is not None:
            asked = batch.layout.mask.sum(1)
            given = tiles_per_sample.to(asked.device) * a_tile
            if not torch.equal(asked, given.to(asked.dtype)):
                raise ValueError(
                    f"image tokens per sample are {asked.tolist()}, but the tiles given make "
                    f"{given.tolist()}"
                )
        return batch

    def generate(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """New ids, (batch, new), greedy by default; takes what :meth:`Session.stream` takes."""
        from lightning_mono.model.generate import generate

        return generate(self, input_ids, *args, **kwargs)

    def stream(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        """Yields (batch,) ids as they come; takes what :meth:`Session.stream` takes."""
        from lightning_mono.model.generate import stream

        return stream(self, input_ids, *args, **kwargs)

    def session(self, batch: int = 1) -> Session:
        """A conversation in ``batch`` rows, over several turns; images may come in any of them."""
        from lightning_mono.model.session import Session

        return Session(self, batch)

    def _autocast_dtype(self) -> torch.dtype | None:
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device
