"""Models and runs on disk: safetensors for weights, files that appear whole or not at all."""
