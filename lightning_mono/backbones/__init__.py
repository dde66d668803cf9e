"""Text LLMs to build on: loaded from several kinds of files into one kind of object."""

from lightning_mono.backbones.backbone import Backbone
from lightning_mono.backbones.config import DecoderConfig, RopeScaling, tensor_shapes
from lightning_mono.backbones.huggingface import save_backbone
from lightning_mono.backbones.load import PACKAGED, load_backbone
from lightning_mono.backbones.tokenizer import ImageTokens, add_image_tokens, train_bpe

__all__ = [
    "PACKAGED",
    "Backbone",
    "DecoderConfig",
    "ImageTokens",
    "RopeScaling",
    "add_image_tokens",
    "load_backbone",
    "save_backbone",
    "tensor_shapes",
    "train_bpe",
]
