"""Limits in a file: whose they are, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.limits import NO_LIMITS, STRICT, LimitFile, Limits, LimitTable
from nearline.access.rights import Right
from nearline.errors import SettingsError

READS = {"*": Right.READ}
SHOP = Caller("shop", rights=READS, key="k1")
TABLE = LimitTable.parse(
    """
    [default]
    requests_per_s = 10
    k = 100
    [tenants.shop]
    k = 1000
    [tenants."*"]
    concurrent = 4
    [keys.k1]
    batch = 2
    """
)


@pytest.mark.parametrize(
    ("caller", "limits"),
    [
        (SHOP, Limits(requests_per_s=10, k=1_000)),
        (Caller("other", rights=READS), Limits(requests_per_s=10, k=100)),
        (ANONYMOUS, Limits(requests_per_s=10, k=100)),
        # Nothing of [default] bounds an operator, or a service that calls for itself.
        (Caller("*", rights=READS), Limits(concurrent=4)),
        (Caller("default", name="service"), Limits(concurrent=4)),
        (Caller("shop", rights=READS, through_service=True), Limits()),
    ],
)
def test_a_caller_has_the_limits_of_its_tenant(caller: Caller, limits: Limits) -> None:
    assert TABLE.of_tenant(caller) == limits


def test_a_key_may_have_limits_of_its_own() -> None:
    assert TABLE.of_key(SHOP) == Limits(batch=2)
    # The subject of a token may be anything.
    for other in (Caller("shop", rights=READS, key="k2"), Caller("shop", rights=READS, name="k1")):
        assert TABLE.of_key(other) is NO_LIMITS
    assert TABLE.of_key(Caller("shop", rights=READS, key="k1", through_service=True)) is NO_LIMITS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[default]\nk = 0", "default.k: input should be greater than or equal to 1"),
        (
            "[default]\nrequests_per_s = 0",
            "default.requests_per_s: .* greater than or equal to 0.000001",
        ),
        ("[default]\nrequests_per_s = inf", "default.requests_per_s: .* finite"),
        ("[tenants.shop]\nrate = 3", "tenants.shop.rate: extra inputs are not permitted"),
        ("[tenant.shop]\nk = 3", "tenant: extra inputs"),
        ("[keys.k1]\nexact = 1", "keys.k1.exact: input should be a valid boolean"),
        ("k = ", "Invalid value"),
        ("default = 3", "default: input should be"),
        ("[default]\nk = 1\n[tenants]\nshop = 3", "tenants.shop: input should be"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem) as caught:
        LimitFile(str(file))
    assert str(file) in caught.value.message


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        LimitFile(str(tmp_path / "none"))
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(SettingsError, match="16,777,217 bytes"):
        LimitFile(str(huge))


@pytest.mark.parametrize("line", ["requests_per_s = 1e-9", f"burst = 1{'0' * 400}"])
def test_figures_that_cannot_be_reckoned_with_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="default"):
        LimitTable.parse(f"[default]\n{line}")


def test_a_changed_file_counts_within_a_second_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    file, now = tmp_path / "limits.toml", [0.0]
    file.write_text("[default]\nk = 1")
    limits = LimitFile(str(file), lambda: now[0])
    for text, k in (("[default]\nk = 22", 22), ("[default", 22), ("[default]\nk = 333", 333)):
        before = limits.table.default.k
        file.write_text(text)
        now[0] += 0.9
        assert limits.table.default.k == before
        now[0] += 0.2
        assert limits.table.default.k == k


def test_the_strict_limits_bound_everything() -> None:
    strict = LimitFile(STRICT).table.default
    assert all(value is not None for value in strict.model_dump().values())
    assert strict.exact is False


def test_the_items_of_a_tenant_are_limited_also_through_a_service() -> None:
    table = LimitTable.parse("default.items = 5\n[tenants.shop]\nitems = 7\n[keys.k1]\nitems = 1")
    for caller in (SHOP, Caller("shop", rights=READS, through_service=True)):
        assert table.item_limit(caller) == ("tenant 'shop'", 7)
    assert table.item_limit(Caller("other")) == ("tenant 'other'", 5)
    assert TABLE.item_limit(SHOP) is None
