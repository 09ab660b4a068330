"""The settings of a search: the section `search` of params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import model_validator

from gnnrl.agents.registry import AGENTS, SUBSET, Builders, section_of
from gnnrl.agents.settings import (
    A3CSettings,
    AnnealingSettings,
    DDPGSettings,
    EvolutionSettings,
    EvoPressSettings,
    MoveSettings,
    PlackettLuceSettings,
    PPOSettings,
    RankingSettings,
    ReinforceSettings,
    SensitivitySettings,
    SwapSettings,
)
from gnnrl.errors import UserError
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.evaluation.rewards import CONSTRAINED, SMALLEST, RewardSettings
from gnnrl.evaluation.training_settings import StudentSettings
from gnnrl.graph.budget import Budget, share_of
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.criteria import (
    CRITERIA,
    FROM_INITIAL,
    OF_SINGLE_WEIGHTS,
    SALIENCIES,
    BottleneckSettings,
)
from gnnrl.registry import is_own
from gnnrl.rl.settings import GnnSettings
from gnnrl.search.parallel.settings import RaySettings
from gnnrl.settings import (
    BelowOne,
    Count,
    CountOrNone,
    Float,
    Name,
    Probability,
    Seed,
    Settings,
    Share,
    ShareOrCount,
    Switch,
    Weights,
    name_in,
)

ALIASES = {
    f"{criterion}{end}": {"importance": criterion, "ranking": {"shuffled": bool(end)}}
    for criterion in ("magnitude", "magnitude_sign", "snip", "grasp", "synflow")
    for end in ("", "_shuffled")
}
"""Former names of agents, and what they stand for: the agent `ranking` with an importance."""

SECTIONS: Mapping[str, type[Settings]] = {
    "a3c": A3CSettings,
    "ppo": PPOSettings,
    "ddpg": DDPGSettings,
    "reinforce": ReinforceSettings,
    "plackett_luce": PlackettLuceSettings,
    "annealing": AnnealingSettings,
    "swaps": SwapSettings,
    "evolution": EvolutionSettings,
    "evopress": EvoPressSettings,
    "sensitivity": SensitivitySettings,
    "solver": MoveSettings,
    "ranking": RankingSettings,
}
"""The settings of agents, by the key that they stand under."""

RECONSTRUCTION, BOTTLENECK, DEPTH = "reconstruction", "bottleneck", "depth"

IMPORTANCES = (*CRITERIA, *SALIENCIES, RECONSTRUCTION, BOTTLENECK)
"""Names of importances."""

SUBSETS = {"filters": "filters", "single_weights": "weights"}
"""Spaces of ours that keep a number of something, and of what."""

COSTED = ("channels", "channels_and_weights", "joint", "weights")
"""Spaces of ours that meet a budget of cost and no other."""


class BudgetSettings(Settings):
    """Fractions of the dense network's cost that the subnet may have, or numbers above 1 of what is
    counted; all given ones are met."""

    flops: ShareOrCount | None = None
    """Multiply-accumulates: a fraction, or their number."""
    parameters: ShareOrCount | None = None
    """Weights and biases: a fraction, or their number."""
    latency: Share | None = None
    """Measured milliseconds; needs search.latency_table."""
    sparsity: BelowOne | None = None
    """Instead, the fraction of filters, or single weights, that is removed."""

    @model_validator(mode="after")
    def _given(self) -> BudgetSettings:
        try:
            self.budget()
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def budget(self, graph: ComputationalGraph | None = None) -> Budget:
        """Return it as spaces and evaluators take it, in fractions of what the graph costs.

        Without a graph numbers count as the whole, to see which budgets are given.
        """
        given = {name: value for name, value in self if value is not None}
        return Budget(**{name: share_of(graph, name, value) for name, value in given.items()})


class CalibrationSettings(Settings):
    """What is computed before a search: importance and prior."""

    importance: Annotated[str, name_in("gnnrl.search.settings:IMPORTANCES")] = "l1"
    """l1, l2, batch_norm, fpgm, reconstruction, bottleneck, ...: docs/concepts.md."""
    prior: Literal["none", "reconstruction", "bottleneck", "depth"] = "none"
    """none; where actions start: reconstruction, bottleneck, depth (space layers)."""
    calibration_images: Count = 1024
    """Unlabelled training images for importance, prior, compensation."""
    bottleneck: BottleneckSettings = BottleneckSettings()
    """How long gates are trained (importance and prior bottleneck)."""


class LatencyTarget(Settings):
    """What a latency table has to be of; null: whatever it is of."""

    runtime: str | None = None
    """Such as onnxruntime."""
    batch_size: Count | None = None
    """Images that pass at once."""
    device: str | None = None
    """cpu or cuda."""
    threads: Count | None = None
    """Of the processor."""


class RescoreSettings(Settings):
    """How the best plans of a search are scored again."""

    plans: Count
    """How many of the best plans are scored again; of several, one is where the search started."""
    images: Count
    """On how many training images."""
    compensation: Literal["reward", "mean_shift", "gram", "sequential"] = "reward"
    """As the reward has it, or as prune has it, which then decides alone."""


class SpaceSettings(Settings):
    """What is decided, and within which budget."""

    space: Annotated[str, name_in("gnnrl.search.spaces.registry:SPACES")] = "channels"
    """channels, joint (and layers), layers, weights, channels_and_weights, filters,
    single_weights."""
    budget: BudgetSettings = BudgetSettings(flops=0.5)
    """Fraction of the dense network's cost."""
    budgets: tuple[Share, ...] = ()
    """Further fractions of the budget's resource: one search plans for all, and for any between."""
    max_steps: Count = 1
    """1: a plan in one go; more: the network is pruned step by step."""
    in_turn: Switch = False
    """One decision per step, from the input to the output, as in AMC and AGMC."""
    latency_table: Name | None = None
    """A file of `python -m stages.latency`, for a budget of latency."""
    latency_for: LatencyTarget = LatencyTarget()
    """What the latency table has to be of; another one is refused."""
    min_channels: Count = 1
    """That every group keeps."""
    multiple: Count | None = None
    """Widths are rounded to multiples of it; null: of the latency table's, else 1."""
    min_fraction: Probability | None = None
    """Of its filters, that every layer keeps (space filters)."""
    kernels: Switch = False
    """Whether kernels may become smaller, too (space layers)."""
    encoder: Annotated[str, name_in("gnnrl.rl.settings:ENCODERS")] = "multi_stage"
    """Of ppo, ddpg, reinforce and a3c: plain, multi_stage, encoder_decoder."""


class SearchSettings(SpaceSettings, CalibrationSettings):
    """What is searched for, by whom, at what cost.

    The settings of an agent stand under its name; absent ones take their defaults, and those of
    agents that are not chosen have no effect.
    """

    seed: Seed = 0
    """Of the search."""
    weights: Weights = "final"
    """Weights that are searched: initial, final or the epoch of a snapshot."""
    agent: Annotated[str, name_in("gnnrl.agents.registry:AGENTS")] = "ppo"
    """ppo, ddpg, reinforce, a3c, annealing, evolution, evopress, solver, random ..."""
    agent_from: Name | None = None
    """The agent.pt of another search, on any network, to start with; or pretrained."""
    agent_part: Literal["policy", "encoder"] = "policy"
    """Of agent_from: policy; encoder: it alone, decoder and heads start anew."""
    policy: Annotated[str, name_in("gnnrl.rl.settings:POLICIES")] = "shared"
    """Actor and critic of ppo, reinforce and a3c. shared: on one encoder; or your own."""
    evaluations: CountOrNone = 96
    """What may be spent; 1 is 500 images passed through the network; 0: the agent's first plan."""
    batch: Count = 8
    """Plans between two updates of the agent."""
    target: Float | None = None
    """Reward at which the search ends early; null: it uses up its evaluations."""
    keep_every: Count | None = None
    """Updates after which the agent is kept, in agents/; null: only the last one is."""
    controls: Switch = True
    """Plans that need no search are evaluated first, to compare: uniform, the allocation."""
    reward: RewardSettings = RewardSettings()
    """How a plan is scored."""
    students: StudentSettings | None = None
    """Subnets are trained with a teacher before they are scored; absent: they are not."""
    rescore: RescoreSettings | None = None
    """The best plans are scored again on other images; absent: the best reward decides."""
    ray: RaySettings | None = None
    """Workers; absent: this process evaluates."""
    gnn: GnnSettings = GnnSettings()
    """The encoder of agents that have one."""
    a3c: A3CSettings | None = None
    """Asynchronous advantage actor-critic."""
    ppo: PPOSettings | None = None
    """Proximal policy optimisation."""
    ddpg: DDPGSettings | None = None
    """Deep deterministic policy gradient."""
    reinforce: ReinforceSettings | None = None
    """Policy gradient with a leave-one-out baseline."""
    plackett_luce: PlackettLuceSettings | None = None
    """Reinforce in the spaces filters and single_weights."""
    annealing: AnnealingSettings | None = None
    """Simulated annealing."""
    swaps: SwapSettings | None = None
    """Annealing in the spaces filters and single_weights."""
    evolution: EvolutionSettings | None = None
    """CMA-ES."""
    evopress: EvoPressSettings | None = None
    """Evolution by level switches."""
    solver: MoveSettings | None = None
    """The best plan by measured errors, whose weights are then searched."""
    sensitivity: SensitivitySettings | None = None
    """Each decision alone first, then moves from the best action."""
    ranking: RankingSettings | None = None
    """The filters or single weights of the highest importance (spaces filters, single_weights)."""
    own: dict[str, Any] | None = None
    """Settings of an agent named package.module:function."""

    @model_validator(mode="before")
    @classmethod
    def _criterion_named_as_agent(cls, values: Any) -> Any:
        """Take the ten names of ranking agents, such as snip_shuffled, as they were."""
        alias = ALIASES.get(str(values.get("agent"))) if isinstance(values, Mapping) else None
        return values if alias is None else {**values, "agent": "ranking", **alias}

    @model_validator(mode="after")
    def _agent_and_budget_suit_the_space(self) -> SearchSettings:
        space, agent, sparsity = self.space, self.agent, self.budget.sparsity
        if space in SUBSETS and sparsity is None:
            raise ValueError(
                f"has the space {space}, which keeps a number of {SUBSETS[space]}: set "
                "'search.budget.sparsity', and the other budgets to null"
            )
        if space in COSTED and sparsity is not None:
            raise ValueError(
                f"has a budget of sparsity, which counts filters or single weights, but the space "
                f"{space}: set 'search.space' to filters or single_weights, or another budget"
            )
        several = len(self.budget.budget().shares) > 1
        if several and (space != "channels" or self.budgets or self.prior == "bottleneck"):
            raise ValueError(
                f"has a budget of {self.budget.budget()}, which only the space channels meets, for "
                "one budget and without the prior bottleneck: set all but one of them to null"
            )
        single = space in ("channels", "layers") and not (several or self.budgets or self.in_turn)
        if self.reward.kind in SMALLEST and not single and not is_own(space):
            raise ValueError(
                f"has the reward {self.reward.kind}, for which plans need not use up the budget: "
                "set 'search.space' to channels or layers, 'search.budgets' to [], "
                "'search.in_turn' to false, and give one budget alone"
            )
        if space in SUBSETS and not is_own(agent) and agent not in SUBSET:
            raise ValueError(
                f"has the agent {agent}, which cannot choose a number of {SUBSETS[space]}: for the "
                f"space {space} take one of {', '.join(SUBSET)}"
            )
        if space == "single_weights" and self.importance not in OF_SINGLE_WEIGHTS:
            raise ValueError(
                f"has the importance {self.importance}, which ranks no single weights, but the "
                f"space {space}: set 'search.importance' to one of {', '.join(OF_SINGLE_WEIGHTS)}"
            )
        if space in (*COSTED, "layers") and agent == "ranking":
            raise ValueError(
                f"has the agent {agent}, which ranks filters or single weights, but the space "
                f"{space}: set 'search.space' to filters or single_weights"
            )
        if space in SUBSETS and (self.max_steps > 1 or self.prior != "none"):
            raise ValueError(
                f"has the space {space}, which is decided in one go and from nothing: set "
                "'search.max_steps' to 1 and 'search.prior' to none"
            )
        if self.kernels and space != "layers" and not is_own(space):
            raise ValueError(
                f"has kernels, whose sizes the space layers decides, but the space {space}: set "
                "'search.kernels' to false, or 'search.space' to layers"
            )
        if self.kernels and self.budget.latency is not None:
            raise ValueError(
                "has kernels and a budget of latency, but no smaller kernel was measured: give "
                "'search.budget.flops' or 'search.budget.parameters' instead"
            )
        if self.in_turn and (space in (*SUBSETS, "layers") or self.max_steps > 1):
            raise ValueError(
                "has in_turn, which takes one decision per step, each a number: set "
                "'search.max_steps' to 1 and 'search.space' to channels, joint, weights or "
                "channels_and_weights"
            )
        if space in ("weights", "layers") and self.prior not in ("none", DEPTH):
            raise ValueError(
                f"has a prior, which is an allocation of channels, but the space {space}: set "
                "'search.prior' to none"
            )
        if self.prior == DEPTH and space != "layers" and not is_own(space):
            raise ValueError(
                f"has the prior {DEPTH}, which the space layers knows, but the space {space}: set "
                "'search.prior' to none"
            )
        if self.prior == DEPTH and not is_own(agent) and not AGENTS[agent].encoder:
            raise ValueError(
                f"has the prior {DEPTH}, near which a policy starts, but the agent {agent}, which "
                "has none: set 'search.prior' to none, or 'search.agent' to ppo, reinforce or a3c"
            )
        return self

    @model_validator(mode="after")
    def _one_way_of_scoring(self) -> SearchSettings:
        short = self.reward.training is not None
        if short and self.students is not None:
            raise ValueError(
                "has 'reward.training' and 'students', which both train subnets: leave one out"
            )
        if short and self.reward.race:
            raise ValueError(
                "has 'reward.training' and a race, which scores subnets without training: set "
                "'search.reward.race' to 0"
            )
        if self.rescore is not None and (short or self.students is not None):
            raise ValueError(
                "has 'rescore', but subnets are trained before they are scored, which is not done "
                "again on other images: take 'search.rescore' out"
            )
        if self.rescore is not None:
            wanted = self.rescore.plans * self.rescore.images / EQUIVALENT
            if wanted >= self.evaluations:
                raise ValueError(
                    f"has {self.evaluations} evaluations, and 'rescore' alone asks for "
                    f"{wanted:.4g}: rescore fewer plans or images, or raise 'search.evaluations'"
                )
        if self.rescore is not None and self.reward.kind in SMALLEST:
            raise ValueError(
                f"has 'rescore' and the reward {self.reward.kind}, whose accuracy holds on the "
                "reward images alone: take 'search.rescore' out, or take more reward images"
            )
        if self.reward.kind == CONSTRAINED and self.students is None:
            raise ValueError(
                f"has the reward {CONSTRAINED}, which students are eased into: add "
                "'search.students', or set 'search.reward.kind' to n2n"
            )
        return self

    @property
    def needs_initial(self) -> bool:
        """Whether the importance compares weights with those before training."""
        return self.importance in FROM_INITIAL

    @property
    def agent_section(self) -> str:
        """The key that the agent's settings stand under."""
        return "own" if is_own(self.agent) else section_of(self.agent, self.space in SUBSETS)

    def agent_settings(self) -> dict[str, Any]:
        """Return the settings of the chosen agent, complete."""
        name = self.agent_section
        given = getattr(self, name, None)
        return dict(SECTIONS[name]() if given is None and name in SECTIONS else given or {})

    def agent_parameters(self) -> dict[str, Any]:
        """Return the flat settings of the chosen agent, its encoder's included if it has one."""
        encoded = AGENTS.get(self.agent, Builders()).encoder
        own = {"encoder": self.encoder, "policy": self.policy}
        encoder = {**own, **dict(self.gnn)} if encoded else {}
        return self.agent_settings() | encoder

    @property
    def without_effect(self) -> list[str]:
        """The keys of settings that are given for agents that are not chosen."""
        given = [name for name in (*SECTIONS, "own") if getattr(self, name) is not None]
        return [name for name in given if name != self.agent_section]

    def resolved(self) -> dict[str, Any]:
        """Return everything that the result depends on as JSON values, defaults included."""
        values = self.model_dump(mode="json", exclude={*SECTIONS, "own", "ray"})
        settings = self.agent_settings()
        return values | ({self.agent_section: settings} if settings else {})
