"""Recipes as YAML; ``lightning-mono ls`` lists them, ``lightning-mono show NAME`` prints one."""

if __name__ != "lightning_mono.recipes":
    raise ImportError("import lightning_mono.recipes, not recipes")
