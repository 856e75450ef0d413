"""A function of parameters and data, traced with its vector-Jacobian product, and cut into flat graphs.

The trace is one graph, (parameters, data, cotangents) -> (outputs, products). Its cuts are what gets compiled:

- what depends on the data alone and is computed once a task: masks, and all that lies below the first adapted tensor,
- the outputs, and the products: either with the forward part computed again, or from what the forward part kept.

Frozen weights, which tracing stores in the graph, become inputs, so that a graph holds no weights of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

TensorFunction = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]
"""(parameters, data) -> outputs. Depends on its arguments (and on frozen weights) alone, not on Python state."""

NARROW = 16
"""Columns up to which a matrix is narrow."""


class Cuts:
    """The graphs cut from one trace, each as a module that takes and returns flat tensors.

    "rest" is what the data's part has computed, followed by the frozen weights.

    Parameters
    ----------
    function : (parameters, data) -> outputs
        Differentiated once, so it may itself contain a gradient.
    parameters, data : sequences of Tensor
        Of the shapes to trace for.
    fused : bool
        Break operations into the small ones that a compiler fuses; else they stay what runs fast one by one.

    Attributes
    ----------
    live : list of bool
        Of each output whether it is differentiable.
    used : list of bool
        Of each tensor of the data whether anything depends on it. The graphs fit other shapes of those that are not.
    frozen : list of Tensor
        The frozen weights.
    """

    def __init__(
        self, function: TensorFunction, parameters: Sequence[Tensor], data: Sequence[Tensor], fused: bool
    ) -> None:
        module, self.live, self.frozen = _trace(function, parameters, data, fused)
        self._graph = module.graph
        places = iter([node for node in self._graph.nodes if node.op == "placeholder"])
        self._parameters = [next(places) for _ in parameters]
        inputs = [next(places) for _ in data]
        self._cotangents = [next(places) for _ in self.live]
        self._weights = list(places)
        (results,) = next(node for node in self._graph.nodes if node.op == "output").args
        self._outputs, self._products = list(results[: len(self.live)]), list(results[len(self.live) :])
        moving = _dependents(self._graph, [*self._parameters, *self._cotangents])
        fixed = [node for node in _dependents(self._graph, inputs) if node not in moving]
        self._given = [node for node in fixed if any(user in moving or user.op == "output" for user in node.users)]
        self._rest = [*self._given, *self._weights]
        self._inputs = inputs
        self.used = [bool(node.users) for node in inputs]
        self._halves: dict[float, tuple[fx.GraphModule, fx.GraphModule]] = {}

    @cached_property
    def once(self) -> fx.GraphModule:
        """(data…, frozen…) -> what depends on the data alone."""
        return _extract(self._graph, [*self._inputs, *self._weights], self._given)

    @cached_property
    def outputs(self) -> fx.GraphModule:
        """(parameters…, rest…) -> outputs."""
        return _extract(self._graph, [*self._parameters, *self._rest], self._outputs)

    @cached_property
    def products(self) -> fx.GraphModule:
        """(parameters…, rest…, cotangents…) -> cotangentᵀ · d outputs / d parameters, the forward part again."""
        return _extract(self._graph, [*self._parameters, *self._rest, *self._cotangents], self._products)

    def halves(self, share: float) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Forward, (parameters…, rest…) -> the outputs, then what is kept; and back, (kept…, cotangents…) -> products.

        Parameters
        ----------
        share : float in (0, 1]
            Of the memory that holds all that is worth holding. With less, the way back computes again what costs least
            for its size: outputs of wide layers before those of narrow ones.
        """
        if share not in self._halves:
            from torch._functorch import config as functorch_config  # here, as these take long to import
            from torch._functorch.partitioners import min_cut_rematerialization_partition

            whole = _extract(
                self._graph,
                [*self._parameters, *self._rest, *self._cotangents],
                [*self._outputs, *self._products],
                tangents=len(self.live),
            )
            with functorch_config.patch(activation_memory_budget=share):
                self._halves[share] = min_cut_rematerialization_partition(whole, None, num_fwd_outputs=len(self.live))
        return self._halves[share]


def _trace(
    function: TensorFunction, parameters: Sequence[Tensor], data: Sequence[Tensor], fused: bool
) -> tuple[fx.GraphModule, list[bool], list[Tensor]]:
    """The whole graph, (parameters…, data…, cotangents…, frozen…), which outputs are live, and the frozen weights."""
    from torch._inductor.decomposition import select_decomp_table  # here, as it takes long to import

    def leaves_of(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.detach().requires_grad_(True) for tensor in tensors]

    def joint(*tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = leaves_of(tensors[: len(parameters)])
        outputs = function(leaves, tensors[len(parameters) : len(parameters) + len(data)])
        cotangents = tensors[len(parameters) + len(data) :]
        pairs = [(out, u) for out, u in zip(outputs, cotangents, strict=True) if out.requires_grad]
        products: Iterable[Tensor] = map(torch.zeros_like, leaves)
        if pairs:
            products = torch.autograd.grad(
                [out for out, _ in pairs], leaves, [u for _, u in pairs], allow_unused=True, materialize_grads=True
            )
        return (*(out.detach() for out in outputs), *products)

    with torch.enable_grad():
        outputs = function(leaves_of(parameters), data)
        live = [out.requires_grad for out in outputs]
        cotangents = [torch.empty_like(out) for out in outputs]
        inputs = [*(p.detach() for p in parameters), *data, *cotangents]
        # With fake tensors nothing can look at the values (a mask that happens to be all ones, say) and trace a
        # branch that other data would not take.
        module = make_fx(joint, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    frozen = _lift_constants(module)
    # Once more, without what autograd writes in place in its own sums, which a cut would tear apart.
    decompositions = {**select_decomp_table(), torch.ops.aten.mm.default: _narrow_product} if fused else None
    module = make_fx(functionalize(module), decompositions, tracing_mode="fake")(*inputs, *frozen)
    return module, live, _without_unused(module.graph, frozen)


def _narrow_product(left: Tensor, right: Tensor) -> Tensor:
    """A product with a matrix of few columns (a LoRA's) transposed: MKL takes a fourth to an eighth of the time."""
    few = right.shape[1] <= NARROW and left.shape[0] > NARROW
    return torch.mm(right.t(), left.t()).t() if few else NotImplemented


def _without_unused(graph: fx.Graph, frozen: list[Tensor]) -> list[Tensor]:
    """Those of the frozen weights, the graph's last inputs, that something depends on; the others leave the graph.

    Embeddings, say, where what the layers below make of a task is an input: the partitioner would count their size.
    """
    graph.eliminate_dead_code()
    weights = [node for node in graph.nodes if node.op == "placeholder"][-len(frozen) :] if frozen else []
    used = [tensor for node, tensor in zip(weights, frozen, strict=True) if node.users]
    for node in weights:
        if not node.users:
            graph.erase_node(node)
    return used


def _lift_constants(module: fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that tracing stored in the graph into inputs at its end; the tensors, in order."""
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    constants: list[Tensor] = []
    inputs: dict[str, fx.Node] = {}
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        target = str(node.target)
        if target not in inputs:
            with module.graph.inserting_after(last):
                inputs[target] = last = module.graph.placeholder(f"frozen_{len(constants)}")
            constants.append(operator.attrgetter(target)(module).detach())
        node.replace_all_uses_with(inputs[target])
        module.graph.erase_node(node)
    module.recompile()
    return constants


def _dependents(graph: fx.Graph, sources: Iterable[fx.Node]) -> dict[fx.Node, None]:
    """`sources` and every node computed from one of them, in the graph's order; the output node excepted."""
    reached = set(sources)
    for node in graph.nodes:
        if node.op != "output" and any(before in reached for before in node.all_input_nodes):
            reached.add(node)
    return {node: None for node in graph.nodes if node in reached}


def _extract(
    graph: fx.Graph, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], tangents: int = 0
) -> fx.GraphModule:
    """The part of `graph` that computes `outputs` from `inputs`, which may be nodes in its middle.

    The last `tangents` inputs get the name by which the partitioner knows cotangents, the others that of primals.
    """
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for place, node in enumerate(inputs):
        family = "tangents" if place >= len(inputs) - tangents else "primals"
        copies[node] = part.placeholder(f"{family}_{place + 1}")
        copies[node].meta = dict(node.meta)
    needed = set(outputs)
    for node in reversed(graph.nodes):
        if node in needed and node not in copies:
            needed.update(node.all_input_nodes)
    for node in graph.nodes:
        if node in needed and node not in copies:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(torch.nn.Module(), part)
