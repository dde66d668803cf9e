"""What happens during a run, one callback a file."""

if __name__ != "lightning_mono.callbacks":
    raise ImportError("import lightning_mono.callbacks, not callbacks")
