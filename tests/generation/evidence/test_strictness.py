"""Tests of the setting of how sure the service must be."""

from __future__ import annotations

import pytest

from generation.evidence.strictness import StrictnessRules
from generation.settings import GenerationSettings
from nearline.contract import Strictness
from nearline.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "default", "policies"),
    [
        ("balanced", Strictness.BALANCED, Strictness.BALANCED),
        ("", Strictness.BALANCED, Strictness.BALANCED),
        ("lenient", Strictness.LENIENT, Strictness.LENIENT),
        ("lenient, policies = strict", Strictness.LENIENT, Strictness.STRICT),
        ("policies=strict,", Strictness.BALANCED, Strictness.STRICT),
        ("policies=strict,lenient", Strictness.LENIENT, Strictness.STRICT),
    ],
)
def test_rules_name_the_strictness_of_a_collection(
    text: str, default: Strictness, policies: Strictness
) -> None:
    rules = StrictnessRules.parse(text)
    assert (rules.of("default"), rules.of("policies")) == (default, policies)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("harsh", "'harsh' has no known strictness"),
        ("policies=", "'policies=' has no known strictness"),
        ("=strict", "'=strict' names no collection"),
        ("a=strict,a=lenient", "'a=lenient' is the second rule for 'a'"),
        ("strict,lenient", "'lenient' is the second rule for 'all'"),
    ],
)
def test_a_setting_of_another_form_says_how_to_write_it(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as failed:
        GenerationSettings.load({}, {"NEARLINE_GENERATION_STRICTNESS": text})
    for part in ("STRICTNESS", told, "balanced,policies=strict"):
        assert part in str(failed.value)
