"""ONNX files of models that were trained elsewhere: read with care, and completed to what serving runs
(`model.imported` has the forms, docs/model.md the contract).

Of the short form there may be several files, one for each instant, as libraries write that fit one output at
a time. `completed` joins them into one graph: pick the inputs, run what was imported, complete its moves to a
path, add scale and head. What was imported runs unchanged within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tickcast.adapters.registry.model_description import Description
from tickcast.adapters.registry.onnx_model import session_of
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.fit import INPUTS
from tickcast.model.forecast import PATH_S, ModelError
from tickcast.model.imported import SWAPPED, completion
from tickcast.model.network import SIGMA, places

MOST_BYTES = 4_000_000  # of all files together: serving loads it within one prediction
MOST_NODES = 20_000  # once functions are put in place: each may use others twice, and so on
LEAST_OPSET = 8  # since 7 shapes are broadcast as the nodes around it expect
_DOMAINS = ("", "ai.onnx.ml")  # that onnxruntime has without further libraries
_ENDLESS = ("Loop",)  # serving waits for it: one that ends on some rows may not on others
_PROBED_ROWS = 3
_PATH_OUTPUTS = ("move_bp", "scale_bp", "p_flat")


class FlatHead(NamedTuple):
    """The head for "does not move" of a short form: weights (P, J) of `INPUTS.flat`, bias (J,)."""

    weights: Floats
    bias: Floats

    @classmethod
    def even(cls) -> FlatHead:
        """One that gives ½ always: before there are rows to fit it on."""
        return cls(np.zeros((len(INPUTS.flat), len(PATH_S))), np.zeros(len(PATH_S)))


def completed(files: Sequence[bytes], description: Description, flat: FlatHead) -> bytes:
    """The file that serving runs: of the full form it is the only one of `files` itself. Raises `ModelError`
    naming what in a file is not as the contract has it."""
    if not files:
        raise ModelError("no file of a model")
    if (size := sum(map(len, files))) > MOST_BYTES:
        raise ModelError(f"the model takes {size:,} bytes, it should be {MOST_BYTES:,} at most")
    names = [f"file {number}" for number in range(1, len(files) + 1)] if len(files) > 1 else ["the file"]
    models = [_read(data, name) for data, name in zip(files, names, strict=True)]
    if description.output == "path":
        if len(models) > 1:
            raise ModelError(f"{len(models)} files: output path is of one file with three outputs")
        _check_path_form(models[0])
        return bytes(files[0])
    return _joined(models, description, flat)


def _read(data: bytes, name: str) -> Any:
    """The model in `data`, its own functions put in place. Raises `ModelError`."""
    import onnx
    from onnx import inliner

    try:
        model = onnx.load_model_from_string(data)
        _refuse_other_files(model)
        _refuse_growth(model)
        onnx.checker.check_model(model)
        if len(model.functions):
            model = inliner.inline_local_functions(model)
            _refuse_other_files(model)  # which attributes of functions have by default
    except Exception as error:  # protobuf's and onnx's own classes, with no common base
        raise ModelError(f"{name} is no ONNX model: {str(error).strip()[:300]}") from None
    for problem in _problems(model):
        raise ModelError(f"{name}: {problem}")
    return model


def _refuse_other_files(model: Any) -> None:
    """Before anything reads them: a file that others made may name any path."""
    from onnx import TensorProto

    for part in (model.graph, *model.functions):
        for tensor in _tensors(part):
            if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
                raise ValueError(f"the weights {tensor.name} lie in another file: save the model as one")
        for sparse in _sparse_tensors(part):  # of two tensors each, in memory as large as they say
            raise ValueError(f"the weights {sparse.values.name} are sparse: save them as all others are")


def _refuse_growth(model: Any) -> None:
    """Raises ValueError where the model's own functions, put in place, would become too many nodes."""
    functions = {(each.domain, each.name, each.overload): each for each in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(graph: Any, within: frozenset[tuple[str, str, str]]) -> int:
        nodes = 0
        for node in _nodes(graph):
            name = (node.domain, node.op_type, node.overload)
            if name in within:
                raise ValueError(f"the function {node.op_type} uses itself")
            if name in functions and name not in sizes:
                sizes[name] = size(functions[name], within | {name})
            nodes += sizes.get(name, 1)
            if nodes > MOST_NODES:
                raise ValueError(f"it has more than {MOST_NODES:,} nodes, functions put in place")
        return nodes

    size(model.graph, frozenset())


def _problems(model: Any) -> Iterator[str]:
    for each in model.opset_import:
        if _domain(each) == "" and each.version < LEAST_OPSET:
            yield f"its opset is {each.version}, it should be {LEAST_OPSET} at least: target_opset=17"
    for node in _nodes(model.graph):
        if _domain(node) not in _DOMAINS:
            yield f"it has the operator {node.domain}.{node.op_type}, which onnxruntime alone does not know"
        if node.op_type in _ENDLESS:
            yield f"it has the operator {node.op_type}, which need not come to an end: export it unrolled"
    yield from _problems_of_interface(model.graph)


def _problems_of_interface(graph: Any) -> Iterator[str]:
    from onnx import TensorProto

    if len(inputs := _inputs(graph)) != 1:
        yield f"it has the inputs {', '.join(each.name for each in inputs) or 'none'}; it should have one"
    for value in (*inputs, *graph.output):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            yield f"{value.name} is no tensor of float32"
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and dimensions[0].dim_value > 0:
            yield f"{value.name} is of {dimensions[0].dim_value} rows; their number should be left open"


def _domain(of: Any) -> str:
    """The domain of an operator or of an opset; ONNX's own has two names."""
    return "" if of.domain == "ai.onnx" else str(of.domain)


def _inputs(graph: Any) -> list[Any]:
    """The inputs that are none of its own weights."""
    own = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in own]


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    for each in _graphs(graph):
        yield from each.node


def _tensors(graph: Any) -> Iterator[Any]:
    for each in _graphs(graph):
        yield from getattr(each, "initializer", ())  # a function has none
        for node in each.node:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)


def _sparse_tensors(graph: Any) -> Iterator[Any]:
    for each in _graphs(graph):
        yield from getattr(each, "sparse_initializer", ())
        for node in each.node:
            for attribute in node.attribute:
                yield from [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
                yield from attribute.sparse_tensors


def _width(value: Any) -> int | None:
    """The number of columns of an input or output; None where it is left open."""
    dimensions = value.type.tensor_type.shape.dim
    return dimensions[-1].dim_value or None if len(dimensions) > 1 else None


def _check_path_form(model: Any) -> None:
    (given,), outputs = _inputs(model.graph), [value.name for value in model.graph.output]
    if given.name != "features" or _width(given) != len(FEATURE_NAMES):
        raise ModelError(
            f"its input is {given.name} of {_width(given)} columns; of output path it should be features, of "
            f"{len(FEATURE_NAMES)}"
        )
    if outputs != list(_PATH_OUTPUTS):
        raise ModelError(
            f"its outputs are {', '.join(outputs)}; of output path they should be "
            f"{', '.join(_PATH_OUTPUTS)}. For moves alone say output moves_bp or moves_sigma"
        )
    for value in model.graph.output:
        if _width(value) != len(PATH_S):
            raise ModelError(f"{value.name} has {_width(value)} columns, it should have {len(PATH_S)}")


def _check_short_form(models: Sequence[Any], description: Description) -> None:
    instants = len(description.instants_s)
    if len(models) not in (1, instants):
        raise ModelError(f"{len(models)} files for {instants} instants; it should be one, or one for each")
    for model in models:
        (given,) = _inputs(model.graph)
        if _width(given) not in (None, len(description.inputs)):
            raise ModelError(
                f"its input {given.name} has {_width(given)} columns, its description names "
                f"{len(description.inputs)} inputs"
            )
        if len(model.graph.output) != 1:
            names = ", ".join(value.name for value in model.graph.output)
            raise ModelError(f"it has the outputs {names}; of the short form it should have one, the moves")
        shape = _answered_shape(model, len(description.inputs))
        if shape not in (
            ((_PROBED_ROWS,), (_PROBED_ROWS, 1)) if len(models) > 1 else ((_PROBED_ROWS, instants),)
        ):
            raise ModelError(
                f"its output for {_PROBED_ROWS} rows has the shape {shape}, its description names {instants} "
                f"instants_s{' and there is a file for each' if len(models) > 1 else ''}"
            )


def _answered_shape(model: Any, inputs: int) -> tuple[int, ...]:
    """The shape of what it answers on some rows: libraries write shapes into files that are not those. Raises
    `ModelError` where it does not run."""
    rows = np.zeros((_PROBED_ROWS, inputs), np.float32)
    session = session_of(model.SerializeToString())
    try:
        (found,) = session.run(None, {_inputs(model.graph)[0].name: rows})
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        raise ModelError(f"it does not run on rows of {inputs} inputs: {str(error).strip()[:300]}") from None
    return tuple(np.shape(found))


def _joined(models: Sequence[Any], description: Description, flat: FlatHead) -> bytes:
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    _check_short_form(models, description)
    parts = [compose.add_prefix(model, f"imported{number}_") for number, model in enumerate(models)]
    constants = _constants(description, flat)
    before, after = _operations(description, len(parts))
    nodes = _made(helper, before)
    for number, part in enumerate(parts):
        (given,) = _inputs(part.graph)
        width = 1 if len(parts) > 1 else len(description.instants_s)
        constants[f"shape{number}"] = np.array([-1, width], np.int64)  # (N,) becomes (N, 1)
        given_moves = part.graph.output[0].name
        nodes.append(helper.make_node("Identity", ["x"], [given.name]))
        nodes += part.graph.node
        nodes.append(helper.make_node("Reshape", [given_moves, f"shape{number}"], [f"moves{number}"]))
    nodes += _made(helper, after)
    floats: list[str | int | None] = ["rows", len(PATH_S)]
    graph = helper.make_graph(
        nodes,
        "tickcast_imported",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(FEATURE_NAMES)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, floats) for name in _PATH_OUTPUTS],
        [
            *(numpy_helper.from_array(value, name) for name, value in constants.items()),
            *(tensor for part in parts for tensor in part.graph.initializer),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*each) for each in _opsets(parts).items()],
        ir_version=max(4, *(part.ir_version for part in parts)),  # before that, weights had to be inputs
        producer_name="tickcast",
    )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the completed model cannot be used: {str(error).strip()[:300]}") from None
    data: bytes = model.SerializeToString()
    return data


def _opsets(models: Sequence[Any]) -> dict[str, int]:
    """By domain, the one version that all files use. Raises `ModelError`."""
    found: dict[str, int] = {}
    for model in models:
        for each in model.opset_import:
            domain = _domain(each)
            if domain in _DOMAINS and found.setdefault(domain, each.version) != each.version:
                raise ModelError(
                    f"the files are of the opsets {found[domain]} and {each.version} of "
                    f"{domain or 'ai.onnx'}: convert all with the same target_opset"
                )
    return {"": 17} | found


def _constants(description: Description, flat: FlatHead) -> dict[str, Any]:
    """Of the nodes around what was imported, under the names of `_operations`."""
    root_t = np.sqrt(np.array([description.instants_s]))
    constants = {
        "swap": SWAPPED[places(description.inputs)],
        "root_k": root_t,
        "half": np.array([0.5]),
        "completion": completion(description.instants_s),
        "root_t": np.sqrt(np.array([PATH_S])),
        "flat_weights": flat.weights,
        "flat_bias": flat.bias,
    }
    used = {name for each in sum(_operations(description, 1), []) for name in each[1].split()}
    found: dict[str, Any] = {
        name: np.asarray(value, np.float32) for name, value in constants.items() if name in used
    }
    integers = {
        "at_inputs": places(description.inputs),
        "at_sigma": np.array([SIGMA]),
        "at_flat": places(INPUTS.flat),
        "both": np.array([2, -1, len(description.instants_s)]),
        "first": np.array(0),
        "second": np.array(1),
    }
    return found | {name: np.asarray(value, np.int64) for name, value in integers.items() if name in used}


_Operations = list[tuple[str, str, str, dict[str, int]]]  # operator, inputs, output, attributes


def _operations(description: Description, files: int) -> tuple[_Operations, _Operations]:
    """What comes before what was imported, from `features` to its input `x`, and after it, from its outputs
    `moves0`, … to a path."""
    columns, rows = {"axis": 1}, {"axis": 0}
    twice = description.symmetrise
    before: _Operations = [
        ("Gather", "features at_inputs", "inputs" if twice else "x", columns),
        ("Gather", "features at_sigma", "sigma", columns),
        ("Gather", "features at_flat", "flat", columns),
    ]
    all_moves = " ".join(f"moves{number}" for number in range(files))
    after: _Operations = [("Concat", all_moves, "all_moves" if twice else "moves", columns)]
    if twice:
        before += [("Mul", "inputs swap", "swapped", {}), ("Concat", "inputs swapped", "x", rows)]
        after += [
            ("Reshape", "all_moves both", "stacked", {}),
            ("Gather", "stacked first", "as_is", rows),
            ("Gather", "stacked second", "exchanged", rows),
            ("Sub", "as_is exchanged", "twice", {}),
            ("Mul", "twice half", "moves", {}),
        ]
    if description.output == "moves_sigma":
        after += [
            ("Mul", "moves root_k", "moves_by_sigma", {}),
            ("MatMul", "moves_by_sigma completion", "path_by_sigma", {}),
            ("Mul", "path_by_sigma sigma", "move_bp", {}),
        ]
    else:
        after.append(("MatMul", "moves completion", "move_bp", {}))
    return before, [
        *after,
        ("MatMul", "sigma root_t", "scale_bp", {}),
        ("MatMul", "flat flat_weights", "flat_driven", {}),
        ("Add", "flat_driven flat_bias", "flat_logit", {}),
        ("Sigmoid", "flat_logit", "p_flat", {}),
    ]


def _made(helper: Any, operations: _Operations) -> list[Any]:
    return [
        helper.make_node(operator, inputs.split(), [output], **attributes)
        for operator, inputs, output, attributes in operations
    ]
