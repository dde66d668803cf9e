"""From YAML and ``key=value`` overrides to a typed recipe, with every problem named at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_mono.errors import RecipeError
from lightning_mono.recipe.schema import Recipe
from lightning_mono.recipe.validate import problems

MAX_BASES = 4
STUDIES = "ablations"  # the folder of what is no recipe, but changes one
_CONTEXT = ("full_key", "object_type", "reference_type")  # lines that OmegaConf adds


@dataclass(frozen=True)
class Layer:
    """One file or one override, and the values it sets."""

    origin: str
    values: DictConfig


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads, merges, types and checks a recipe. Its data need not be there: fit asks for them.

    Args:
        name: a YAML file, or the name of a shipped recipe (``quickstart``, ``micro/language``).
        overrides: ``key=value`` strings; keys are dotted paths.

    Raises:
        RecipeError: all problems found, one a line.
    """
    recipe, _ = load_with_origins(name, overrides)
    return recipe


def load_with_origins(
    name: str | Path, overrides: Sequence[str] = ()
) -> tuple[Recipe, dict[str, str]]:
    """As :func:`load_recipe`; also says for each key that was set which file or override set it."""
    path = find_recipe(name)
    layers = [*_files(path), *_overrides(overrides)]
    config, found = _typed(layers)
    missing = _fill_missing(config)
    found += [f"{key}: missing; it has no default" for key in missing]
    recipe: Recipe | None = None
    try:
        recipe = cast(Recipe, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        found.append(_line(error))
    else:
        every = problems(recipe)
        found += [line for line in every if line.partition(":")[0] not in missing]
    if found or recipe is None:
        raise RecipeError("\n".join(f"{path}: {problem}" for problem in found))
    origins: dict[str, str] = {}
    for layer in layers:
        origins.update(dict.fromkeys(_leaves(layer.values), layer.origin))
    return recipe, origins


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, or a shipped one by its name without ``.yaml``."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        shipped = shipped_recipes().get(path.with_suffix("").as_posix().removeprefix("recipes/"))
        if shipped is not None:
            return shipped
        raise RecipeError(f"{path}: no such file; shipped recipes: {', '.join(shipped_recipes())}")
    shipped_all = shipped_recipes()
    if str(name) in shipped_all:
        return shipped_all[str(name)]
    near = get_close_matches(str(name), shipped_all, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RecipeError(f"no recipe {str(name)!r}{hint} (shipped: {', '.join(shipped_all)})")


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe in the installed package, in order of their names."""
    root = Path(str(files("lightning_mono.recipes")))
    found = sorted(p for p in root.rglob("*.yaml") if p.parent.name != STUDIES)
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in found}


def to_yaml(recipe: Recipe) -> str:
    """A recipe with every value spelled out; loads back to an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def _files(path: Path) -> list[Layer]:
    """The recipe's file, preceded by the files it builds on (``base:``), oldest first."""
    chain: list[Layer] = []
    current: Path | None = path
    while current is not None:
        if len(chain) == MAX_BASES:
            raise RecipeError(f"{path}: more than {MAX_BASES} files deep; does a base name itself?")
        values = read_mapping(current, "a recipe")
        base = values.pop("base", None)
        chain.append(Layer(str(current), values))
        if base is None:
            break
        beside = current.parent / str(base)
        if not beside.is_file():
            raise RecipeError(f"{current}: base: {beside} does not exist")
        current = beside
    return chain[::-1]


def read_mapping(path: Path, what: str) -> DictConfig:
    """A YAML file's keys; `what` says in errors what it should have been."""
    try:
        values = OmegaConf.load(path)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # YAML parsers raise a family of their own
        text = " ".join(str(error).split())
        raise RecipeError(f"{path}: not valid YAML: {text}") from error
    if not isinstance(values, DictConfig):
        raise RecipeError(f"{path}: {what} is a mapping of keys, not a {type(values).__name__}")
    return values


def _overrides(overrides: Sequence[str]) -> list[Layer]:
    layers = []
    for text in overrides:
        if "=" not in text or text.startswith("="):
            raise RecipeError(f"override {text!r}: write key=value, as in optim.lr=3e-4")
        try:
            layers.append(Layer(f"override {text}", OmegaConf.from_dotlist([text])))
        except Exception as error:
            raise RecipeError(f"override {text!r}: {' '.join(str(error).split())}") from error
    return layers


def _typed(layers: Sequence[Layer]) -> tuple[DictConfig, list[str]]:
    """Merges layers onto the schema; a key that does not fit is noted, dropped, and passed by."""
    config: Any = OmegaConf.structured(Recipe)
    found: list[str] = []
    for layer in layers:
        values = _left_out(config, layer.values)
        while True:
            try:
                config = OmegaConf.merge(config, values)
                break
            except OmegaConfBaseException as error:
                found.append(_line(error))
                key = error.full_key or ""
                if not key or not _drop(values, key):
                    break
    return config, found


def _left_out(config: DictConfig, values: DictConfig) -> DictConfig:
    """Takes out stages, data sets and sources that a layer sets to null; gives the rest of it."""
    values = copy.deepcopy(values)
    owners = [(config.stages, values.get("stages")), (config.data, values.get("data"))]
    owners += [
        (config.data[name].sources, data.get("sources"))
        for name, data in (values.get("data") or {}).items()
        if isinstance(data, DictConfig) and name in config.data
    ]
    for known, given in owners:
        if isinstance(given, DictConfig):
            for key in [key for key in given if given[key] is None and key in known]:
                del known[key], given[key]
    return values


def _fill_missing(section: DictConfig, prefix: str = "") -> list[str]:
    """Puts stand-ins where a value must be given and is not, so that the rest can be checked."""
    missing = []
    for key in map(str, section):
        node: Any = section._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            missing += _fill_missing(node, f"{prefix}{key}.")
        elif OmegaConf.is_missing(section, key):
            kind = OmegaConf.get_type(section).__annotations__[key]
            section[key] = {"str": "", "int": 1}.get(kind, [])
            missing.append(f"{prefix}{key}")
    return missing


def _drop(values: DictConfig, key: str) -> bool:
    """Removes a dotted key (or, for ``a[0]``, the list it is in); says whether it was there."""
    parts = key.replace("[", ".").replace("]", "").split(".")
    owner: Any = values
    for part in parts[:-1]:
        inner = owner.get(part) if isinstance(owner, DictConfig) else None
        if not isinstance(inner, DictConfig):
            if isinstance(owner, DictConfig) and part in owner:
                del owner[part]
                return True
            return False
        owner = inner
    if parts[-1] in owner:
        del owner[parts[-1]]
        return True
    return False


def _line(error: OmegaConfBaseException) -> str:
    """OmegaConf's message in one line that starts with the key."""
    first = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in first if not line.startswith(_CONTEXT))
    return f"{error.full_key}: {text}" if error.full_key else text


def _leaves(values: Any, prefix: str = "") -> list[str]:
    leaves: list[str] = []
    for key in values:
        path = f"{prefix}{key}"
        inner = values._get_node(key)
        if isinstance(inner, DictConfig) and not inner._is_none() and len(inner):
            leaves += _leaves(inner, path + ".")
        else:
            leaves.append(path)
    return leaves
