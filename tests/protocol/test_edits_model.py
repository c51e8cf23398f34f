"""The protocol of edits holds in every order of its steps, and each of its rules is needed."""

from __future__ import annotations

import pytest

from tests.protocol.edits_model import RULES, SCENES, Model, broken_without, explore


@pytest.mark.parametrize("scene", SCENES)
def test_no_order_of_steps_breaks_what_is_promised(scene: str) -> None:
    found = explore(Model(), SCENES[scene])

    assert not found.broken, "\n".join([*found.history, found.broken])
    assert found.all_of_them


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_some_order_of_steps_breaks_it(rule: str) -> None:
    assert broken_without(rule).broken
