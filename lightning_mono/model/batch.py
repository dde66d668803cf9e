"""The one shape in which tokens reach a model, packed or padded, for training or for prefill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lightning_mono.model.layout import ModalityLayout
from lightning_mono.model.spans import Span, find_spans
from lightning_mono.model.wanted import Wanted


@dataclass
class Batch:
    """Tokens with all that their attention, routing and loss need.

    A row holds one or more *documents* (0 is padding). A document is a shared prefix (branch 0:
    the image, a text) and any number of branches behind it (one a question); a branch sees the
    prefix and itself, never its sisters, and its positions go on from the prefix's end.

    Attributes:
        input_ids: (batch, tokens) int64.
        positions: rotary positions, (batch, tokens) int64.
        documents: (batch, tokens) int32; 0 marks padding.
        branches: (batch, tokens) int32; 0 marks a document's shared prefix.
        layout: the tokens' modalities.
        pixel_values: normalised tiles in reading order, (tiles, 3, size, size); 0 tiles allowed.
        wanted: positions whose next token is supervised, n of them.
        targets: the ids of those next tokens, (n,) int64.
        weights: each target's share of the loss, relative to the others, (n,) float32.
        tokens: how many are not padding.
        packed: a row may hold several documents, each of which is to be read as if alone.
        plain: every row is one unpadded document without branches: plain causal attention.
        even: all targets weigh the same.
        spans: the rows' documents, where they were looked up (on the CPU); what ``documents`` says.
        samples: ids of the samples inside, for messages.
    """

    input_ids: Tensor
    positions: Tensor
    documents: Tensor
    branches: Tensor
    layout: ModalityLayout
    pixel_values: Tensor
    wanted: Wanted
    targets: Tensor
    weights: Tensor
    tokens: int
    packed: bool = False
    plain: bool = False
    even: bool = False
    spans: tuple[Span, ...] | None = None
    samples: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        *,
        input_ids: Tensor,
        positions: Tensor,
        documents: Tensor,
        branches: Tensor,
        supervised: Tensor,
        pixel_values: Tensor,
        image_context_id: int | None,
        packed: bool = True,
        loss: Literal["token", "sample", "square"] = "token",
        samples: list[str] | None = None,
    ) -> Batch:
        """Derives layout and targets; ``supervised`` marks target tokens, (batch, tokens) bool.

        Args:
            packed: whether rows may hold several documents.
            loss: how much a document of x targets weighs: ``token`` x, ``sample`` 1, ``square``
                sqrt(x) (InternVL 2.5, section 3.3).

        Raises:
            ValueError: nothing predicts a supervised token: it is padding, it opens its row or
                document, or the token before it is of another branch.
        """
        visual = torch.zeros_like(supervised)
        if image_context_id is not None:
            visual = input_ids == image_context_id
        target_at = supervised.reshape(-1).nonzero()[:, 0]
        document, branch = documents.reshape(-1), branches.reshape(-1)
        before = target_at - 1
        orphan = (target_at % input_ids.shape[1] == 0) | (document[target_at] == 0)
        orphan |= document[before] != document[target_at]
        orphan |= (branch[before] != 0) & (branch[before] != branch[target_at])
        if bool(orphan.any()):
            raise ValueError("a supervised token has no token of its document before it")
        layout = ModalityLayout.from_mask(visual)
        plain = bool((documents == 1).all()) and not bool(branches.any())
        return cls(
            input_ids=input_ids,
            positions=positions,
            documents=documents,
            branches=branches,
            layout=layout,
            pixel_values=pixel_values,
            wanted=Wanted.of(before, layout),
            targets=input_ids.reshape(-1)[target_at],
            weights=_weights(documents, target_at, loss),
            tokens=int((documents != 0).sum()),
            packed=packed,
            plain=plain,
            even=loss == "token",
            spans=None if plain or documents.is_cuda else find_spans(documents, branches),
            samples=samples or [],
        )

    @classmethod
    def reading(
        cls,
        input_ids: Tensor,
        positions: Tensor,
        documents: Tensor,
        layout: ModalityLayout,
        pixel_values: Tensor,
        *,
        tokens: int,
        wanted: Wanted | None = None,
        packed: bool = False,
    ) -> Batch:
        """Rows of one document each that are read and predict nothing; asks the device for nothing.

        Args:
            tokens: how many are not padding.
            wanted: positions whose outputs are asked for; by default none is said.
        """
        none = input_ids[:0, 0]
        return cls(
            input_ids=input_ids,
            positions=positions,
            documents=documents,
            branches=torch.zeros_like(documents),
            layout=layout,
            pixel_values=pixel_values,
            wanted=wanted or Wanted.nothing(layout),
            targets=none,
            weights=none,
            tokens=tokens,
            packed=packed,
            plain=tokens == input_ids.numel(),
        )

    @property
    def predict(self) -> Tensor:
        """Flat positions (row * tokens + column) whose next token is supervised, (n,) int64."""
        return self.wanted.rows

    def to(self, device: torch.device | str) -> Batch:
        """Moves every tensor, as Lightning asks of a batch."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return Batch(
            input_ids=move(self.input_ids),
            positions=move(self.positions),
            documents=move(self.documents),
            branches=move(self.branches),
            layout=self.layout.to(device),
            pixel_values=move(self.pixel_values),
            wanted=self.wanted.to(device),
            targets=move(self.targets),
            weights=move(self.weights),
            tokens=self.tokens,
            packed=self.packed,
            plain=self.plain,
            even=self.even,
            spans=self.spans,
            samples=self.samples,
        )


def _weights(
    documents: Tensor, target_at: Tensor, loss: Literal["token", "sample", "square"]
) -> Tensor:
    """x**-1 or x**-0.5 for each target, x being the targets of its document; or 1."""
    if loss == "token":
        return torch.ones(len(target_at))
    rows = target_at // documents.shape[1]
    owner = rows * (int(documents.max()) + 1) + documents.reshape(-1)[target_at]
    _, owner, count = owner.unique(return_inverse=True, return_counts=True)
    return count[owner].float() ** (-1.0 if loss == "sample" else -0.5)
