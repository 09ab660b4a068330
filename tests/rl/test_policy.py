"""Encoders and policies: they see the graph, all of it, and any size of it."""

from __future__ import annotations

import copy

import pytest
import torch

from gnnrl.agents.actor import seeded
from gnnrl.errors import UserError
from gnnrl.rl.observation import ObservationSpec, collate, digest, distinct
from gnnrl.rl.policy import Policy
from gnnrl.rl.settings import EncoderSettings
from tests.rl.toys import ring

SMALL = EncoderSettings(hidden=16, layers=2)
KINDS = [EncoderSettings(encoder="plain", hidden=16, layers=2), SMALL]
DECODER = EncoderSettings(encoder="encoder_decoder", hidden=16, layers=2)


def graphs(count, size=6):
    generator = torch.Generator().manual_seed(0)
    return [ring(generator, size + place, channels=3) for place in range(count)]


def policy(settings=SMALL):
    spec = ObservationSpec.of(graphs(1)[0], "continuous")
    made = seeded(lambda: Policy(spec, settings, torch.zeros(2)), 0)
    with torch.no_grad():
        made.actor[-1].weight.mul_(100)
    return made


def relabelled(data, order):
    """The same graph with node `order[i]` renamed to i; decisions in the order of the names."""
    new = torch.empty_like(order)
    new[order] = torch.arange(len(order))
    other = copy.copy(data)
    other.x, other.edge_index = data.x[order], new[data.edge_index]
    other.channel_index = new[data.channel_index]
    return other


@pytest.mark.parametrize("settings", KINDS)
def test_relabelling_nodes_permutes_the_actions(settings):
    (seen,) = graphs(1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    before, after = policy(settings)([seen]), policy(settings)([relabelled(seen, order)])
    torch.testing.assert_close(after.params, before.params[order])
    torch.testing.assert_close(after.values, before.values)


def decided(data, *earlier):
    """The same graph, one decision at a time: after these actions on its first nodes."""
    other = copy.copy(data)
    place = len(earlier)
    other.decision_index = data.decision_index[place : place + 1]
    other.decided_index, other.decided = data.decision_index[:place], torch.tensor(earlier)
    return other


def test_relabelling_nodes_changes_nothing_for_a_decoder_but_the_order_of_decisions_does():
    (seen,) = graphs(1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    made, other = policy(DECODER), relabelled(seen, order)
    before, reordered = made([seen]), made([other])
    assert not torch.allclose(reordered.params, before.params[order])
    other.decision_index = order.argsort()  # the same nodes in the same order under new names
    after = made([other])
    torch.testing.assert_close(after.params, before.params)
    torch.testing.assert_close(after.values, before.values)


def test_a_decision_depends_on_the_previous_action_and_on_earlier_decisions_only():
    (seen,) = graphs(1)
    made = policy(DECODER)
    low, high = made([decided(seen, 0.2)]), made([decided(seen, 0.9)])
    assert not torch.allclose(low.params, high.params)
    whole, fewer = made([seen]), copy.copy(seen)
    fewer.decision_index = seen.decision_index[:3]
    own = made.embed.encoder(collate([fewer]))[:3] - made.embed.encoder(collate([seen]))[:3]
    torch.testing.assert_close(own, torch.zeros_like(own), atol=1e-5, rtol=0)
    assert whole.params.shape == (6, 2)


def test_episodes_that_are_decided_to_different_depths_join_in_a_batch():
    made = policy(DECODER)
    seen = [decided(one, *[0.5] * k) for k, one in enumerate(graphs(3))]
    together, alone = made(seen), [made([one]) for one in seen]
    torch.testing.assert_close(together.params, torch.cat([one.params for one in alone]))
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone]))


@pytest.mark.parametrize("settings", [*KINDS, DECODER])
def test_a_batch_says_what_each_graph_alone_says(settings):
    seen, made = graphs(3), policy(settings)
    together, alone = made(seen), [made([one]) for one in seen]
    torch.testing.assert_close(together.params, torch.cat([one.params for one in alone]))
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone]))
    assert together.sizes == [6, 7, 8]


@pytest.mark.parametrize("settings", [SMALL, DECODER])
def test_gradients_reach_every_observation_of_a_batch(settings):
    seen = graphs(4)
    for one in seen:
        one.x.requires_grad_()
        one.channel_x.requires_grad_()
    made = policy(settings)
    output = made(seen)
    (output.params.square().sum() + output.values.sum()).backward()
    for one in seen:
        assert (one.x.grad.abs().sum(1) > 0).all()
        assert (one.channel_x.grad.abs().sum(1) > 0).all()
    assert all(weights.grad is not None for weights in made.parameters())


def test_a_prior_is_added_to_the_first_parameter_of_its_decision_alone():
    seen, made = graphs(2), policy()
    before = made(seen)
    for one in seen:
        one.prior = torch.arange(len(one.decision_index), dtype=torch.float32)
    after = made(seen)
    moved = torch.cat([one.prior for one in seen])
    torch.testing.assert_close(after.params[:, 0], before.params[:, 0] + moved)
    torch.testing.assert_close(after.params[:, 1:], before.params[:, 1:])


def test_equal_observations_are_encoded_once_and_unequal_ones_are_not():
    first, second = graphs(2)
    kept, place = distinct([first, second, copy.copy(first), second.clone()])
    assert len(kept) == 2 and place.tolist() == [0, 1, 0, 1]
    changed = first.clone()
    changed.x[0, 0] += 1e-6
    assert digest(changed) != digest(first)
    made = policy()
    torch.testing.assert_close(
        made([first, second, first]).params,
        torch.cat([made([one]).params for one in (first, second, first)]),
    )


def test_each_encoder_sees_what_it_should():
    (seen,) = graphs(1)
    moved, other_channels, other_edges = seen.clone(), seen.clone(), seen.clone()
    moved.x[3, 0] += 1
    other_channels.channel_x[0] += 1
    other_edges.edge_index = other_edges.edge_index[:, :-3]
    other_edges.edge_attr = other_edges.edge_attr[:-3]

    def differs(settings, other, node=0):
        made = policy(settings)
        return not torch.allclose(made([seen]).params[node], made([other]).params[node])

    for settings in KINDS:
        assert differs(settings, moved) and differs(settings, other_edges)
    assert differs(SMALL, other_channels)
    assert not differs(EncoderSettings(encoder="plain", hidden=16, layers=2), other_channels)
    blind = EncoderSettings(hidden=16, blind=True)
    assert not differs(blind, moved) and differs(blind, other_edges)
    alone = EncoderSettings(hidden=16, message_passing=False)
    assert not differs(alone, moved) and not differs(alone, other_edges)
    assert differs(alone, moved, node=3)
    alone = EncoderSettings(hidden=16, message_passing=False, encoder="encoder_decoder")
    assert not differs(alone, moved, node=5) and differs(alone, moved, node=3)


@pytest.mark.parametrize("settings", [SMALL, DECODER])
def test_a_policy_moves_to_a_graph_of_another_size(settings):
    made = policy(settings)
    (large,) = graphs(1, size=40)
    assert made([large]).params.shape == (40, 2)


def test_graphs_with_and_without_channels_do_not_mix():
    first, second = graphs(2)
    del second.channel_x, second.channel_index
    with pytest.raises(ValueError, match="channel_x is in some observations"):
        collate([first, second])


def test_an_unknown_encoder_is_refused():
    with pytest.raises(
        UserError,
        match=r"'encoder' must be one of plain, multi_stage, encoder_decoder or .*, got 'plane'",
    ):
        EncoderSettings(encoder="plane")
