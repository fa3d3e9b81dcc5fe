"""Mixtures of views, of which only a teacher knows what they show."""

from __future__ import annotations

import torch

from vcmcodec.training.mixtures import UNKNOWN, stirred
from vcmcodec.training.vision_batches import Batch

COUNT, SIDE = 40, 32


def batch() -> Batch:
    """Grey views, each of another class and brightness, each inside another row of its frame."""
    value = torch.linspace(0.2, 0.8, COUNT).view(-1, 1, 1, 1)
    valid = torch.zeros(COUNT, 4, 4)
    valid[torch.arange(COUNT), torch.arange(COUNT) % 4] = 1
    none = torch.zeros(0)
    return Batch(
        value.expand(-1, 3, SIDE, SIDE).contiguous(),
        (torch.arange(COUNT) % 20 + 1).to(torch.uint8).view(-1, 1, 1).expand(-1, SIDE, SIDE),
        valid, torch.ones(COUNT, 4, 4), none.view(0, 4), none.long(), none, (0,) * COUNT,
    )  # fmt: skip


def test_a_share_is_mixed_and_its_masks_are_unknown() -> None:
    given = batch()
    found = stirred(given, 0.5, 3)
    unknown = (found.mask == UNKNOWN).flatten(1).all(1)
    assert 0.15 * COUNT < int(unknown.sum()) < 0.55 * COUNT  # some are nearly pure
    assert torch.equal(found.mask[~unknown], given.mask[~unknown])
    rows = found.valid.any(2).sum(1)  # of a mixture two views are there
    assert bool((rows[unknown] == 2).all())
    assert set(rows.tolist()) == {1, 2}
    assert torch.equal(given.mask, batch().mask)


def test_colours_change_in_every_view_and_stay_colours() -> None:
    given = batch()
    found = stirred(given, 1e-9, 3)
    assert torch.equal(found.mask, given.mask)
    assert torch.equal(found.valid, given.valid)
    assert float(found.rgb.min()) >= 0
    assert float(found.rgb.max()) <= 1
    away = (found.rgb - given.rgb).abs().amax((1, 2, 3))
    assert bool((away > 0).all())
    assert float(away.median()) < 0.3


def test_the_seed_decides_everything() -> None:
    assert torch.equal(stirred(batch(), 0.5, 3).rgb, stirred(batch(), 0.5, 3).rgb)
    assert not torch.equal(stirred(batch(), 0.5, 3).rgb, stirred(batch(), 0.5, 4).rgb)


def test_nothing_is_stirred_where_nothing_is_mixed() -> None:
    given = batch()
    assert stirred(given, 0.0, 3) is given
