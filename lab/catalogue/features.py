"""`features.yaml`: read with the line of everything, so that a mistake is shown where it was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.catalogue.model import FAMILIES, HYPERVISORS, Feature, did_you_mean

if TYPE_CHECKING:
    import yaml

_FEATURE_KEYS = ("id", "area", "meaning", "families", "hypervisors")


def read_features(path: Path, problems: list[str]) -> tuple[list[Feature], dict[str, str]]:
    """The features and the map from driver to kind of hypervisor; what is wrong is added to `problems`."""
    # PyYAML because its C parser reads this file in 5 ms; the pure ones need 80.
    import yaml

    loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as reason:
        problems.append(f"{path}: cannot be read: {reason.strerror}")
        return [], {}
    except UnicodeDecodeError as reason:
        problems.append(f"{path}: not UTF-8: {reason}")
        return [], {}
    except yaml.YAMLError as reason:
        mark = getattr(reason, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problems.append(f"{path}:{line}: not YAML: {getattr(reason, 'problem', None) or reason}")
        return [], {}
    except RecursionError:
        problems.append(f"{path}: nested too deeply")
        return [], {}
    reader = _FeaturesFile(path, problems)
    return reader.read(root)


class _FeaturesFile:
    def __init__(self, path: Path, problems: list[str]) -> None:
        self._path = path
        self._problems = problems

    def read(self, root: yaml.Node | None) -> tuple[list[Feature], dict[str, str]]:
        top = self._mapping(root, "the file", ("features", "drivers"))
        drivers = {}
        for key, value in self._pairs(top.get("drivers")):
            drivers[key] = self._word(value, f"drivers.{key}", HYPERVISORS)
        features: list[Feature] = []
        seen: dict[str, int] = {}
        for node in self._sequence(top.get("features"), "features"):
            feature = self._feature(node)
            if feature is None:
                continue
            line = node.start_mark.line + 1
            if feature.id in seen:
                self._say(node, f"{feature.id}: duplicate; the first is in line {seen[feature.id]}")
            seen.setdefault(feature.id, line)
            features.append(feature)
        return features, drivers

    def _feature(self, node: yaml.Node) -> Feature | None:
        before = len(self._problems)
        keys = self._mapping(node, "a feature", _FEATURE_KEYS)
        missing = [key for key in _FEATURE_KEYS if key not in keys]
        if missing and len(self._problems) == before:
            self._say(node, f"a feature lacks {', '.join(missing)}")
        if len(self._problems) > before:
            return None
        name = self._text(keys["id"], "id")
        return Feature(
            id=name,
            area=self._text(keys["area"], f"{name}.area"),
            meaning=self._text(keys["meaning"], f"{name}.meaning"),
            families=self._words(keys["families"], f"{name}.families", FAMILIES),
            hypervisors=self._words(keys["hypervisors"], f"{name}.hypervisors", HYPERVISORS),
        )

    def _say(self, node: yaml.Node | None, what: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self._problems.append(f"{self._path}:{line}: {what}")

    def _pairs(self, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
        if node is None:
            return
        if node.id != "mapping":
            self._say(node, "expected keys and values")
            return
        for key, value in node.value:
            yield str(key.value), value

    def _mapping(self, node: yaml.Node | None, what: str, known: Sequence[str]) -> dict[str, yaml.Node]:
        if node is None or node.id != "mapping":
            self._say(node, f"{what}: expected the keys {', '.join(known)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node):
            if key not in known:
                self._say(value, f"{key}: unknown key{did_you_mean(key, known)}")
            elif key in found:
                self._say(value, f"{key}: given twice")
            found[key] = value
        return found

    def _sequence(self, node: yaml.Node | None, what: str) -> Sequence[yaml.Node]:
        if node is None or node.id != "sequence":
            self._say(node, f"{what}: expected a list")
            return ()
        items: Sequence[yaml.Node] = node.value
        return items

    def _text(self, node: yaml.Node, what: str) -> str:
        if node.id != "scalar" or not node.value.strip():
            self._say(node, f"{what}: expected a text")
            return ""
        return str(node.value)

    def _word(self, node: yaml.Node, what: str, known: Sequence[str]) -> str:
        text = self._text(node, what)
        if text and text not in known:
            self._say(node, f"{what}: unknown {text!r}{did_you_mean(text, known)}; known: {', '.join(known)}")
        return text

    def _words(self, node: yaml.Node, what: str, known: Sequence[str]) -> tuple[str, ...]:
        return tuple(self._word(item, what, known) for item in self._sequence(node, what))
