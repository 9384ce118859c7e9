"""ONNX files that others made, completed to what serving runs: real files, run by onnxruntime."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fixtures.imported import description, linear
from tests.model.test_network import random_features
from tickcast.adapters.registry import imported_onnx, onnx_model
from tickcast.adapters.registry.imported_onnx import FlatHead, completed
from tickcast.adapters.registry.onnx_model import OnnxModel, export, row_by_row
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.fit import INPUTS
from tickcast.model.forecast import HORIZONS_S, PATH_S, ModelError
from tickcast.model.imported import SWAPPED, check, completion
from tickcast.model.network import SIGMA, Network, places, sigmoid

ROWS = random_features(1, 50)
WEIGHTS = np.random.default_rng(2).normal(0, 0.3, (2, 4))
HEAD = FlatHead(*np.split(np.random.default_rng(3).normal(0, 1, (4, len(PATH_S))), [3]))
HEAD = HEAD._replace(bias=HEAD.bias[0])


def run(*files: bytes, **fields: Any) -> tuple[Floats, Floats, Floats]:
    """What the completed model answers on `ROWS`."""
    return OnnxModel(completed(files, description(**fields), HEAD))(ROWS)


def inputs(features: Floats) -> Floats:
    return features[:, places(("imbalance", "ofi_200ms"))]


def test_moves_in_sigmas_are_completed_to_a_path() -> None:
    move_bp, scale_bp, p_flat = run(linear(WEIGHTS))
    sigma_bp = ROWS[:, [SIGMA]]
    moves = inputs(ROWS) @ WEIGHTS * np.sqrt(HORIZONS_S)
    assert move_bp == pytest.approx(moves @ completion(HORIZONS_S) * sigma_bp, rel=1e-4, abs=1e-5)
    assert scale_bp == pytest.approx(sigma_bp * np.sqrt(PATH_S), rel=1e-5)
    assert p_flat == pytest.approx(sigmoid(ROWS[:, places(INPUTS.flat)] @ HEAD.weights + HEAD.bias), abs=1e-5)


def test_moves_in_bp_are_taken_as_they_are() -> None:
    move_bp, _, _ = run(linear(WEIGHTS), output="moves_bp")
    assert move_bp == pytest.approx(inputs(ROWS) @ WEIGHTS @ completion(HORIZONS_S), rel=1e-4, abs=1e-5)
    more = [0.2, 1, 1.2, 2, 5, 10]
    weights = np.hstack([WEIGHTS, WEIGHTS[:, :2]])
    move_bp, _, _ = run(linear(weights), output="moves_bp", instants_s=more)
    known = move_bp[:, [PATH_S.index(t) for t in more]]
    assert known == pytest.approx(inputs(ROWS) @ weights, rel=1e-4, abs=1e-5)


def test_a_file_for_each_instant_is_the_same_as_one_for_all() -> None:
    together = run(linear(WEIGHTS))[0]
    assert run(*(linear(WEIGHTS[:, [n]]) for n in range(4)))[0] == pytest.approx(together, rel=1e-5, abs=1e-6)
    # A library may answer with (N,) instead of (N, 1).
    flat = helper.make_node("Squeeze", ["y", "one"], ["z"])
    one = [model_with(linear(WEIGHTS[:, [n]]), flat, one=np.array([1])) for n in range(4)]
    assert run(*one)[0] == pytest.approx(together, rel=1e-5, abs=1e-6)


def test_a_model_is_made_symmetric() -> None:
    even = {"inputs": ["imbalance", "spread"]}
    kinked = linear(WEIGHTS, nodes=[helper.make_node("Relu", ["y"], ["z"])])
    move_bp = run(kinked, symmetrise=True, **even)[0]

    def by_hand(features: Floats) -> Floats:
        return np.maximum(features[:, places(("imbalance", "spread"))] @ WEIGHTS, 0)

    moves = 0.5 * (by_hand(ROWS) - by_hand(ROWS * SWAPPED)) * np.sqrt(HORIZONS_S)
    assert move_bp == pytest.approx(moves @ completion(HORIZONS_S) * ROWS[:, [SIGMA]], rel=1e-4, abs=1e-5)
    assert (run(kinked, **even)[0] >= 0).all() and not (move_bp >= 0).all()
    one = OnnxModel(completed([kinked], description(symmetrise=True, **even), HEAD))
    assert one(ROWS[:1])[0] == pytest.approx(move_bp[:1], rel=1e-5, abs=1e-6)


def test_a_whole_path_stays_the_file_that_it_is() -> None:
    file = export(Network.zeros(INPUTS, 2))
    assert completed([file], description(output="path", **WHOLE), FlatHead.even()) == file


WHOLE: dict[str, Any] = {"inputs": list(FEATURE_NAMES), "instants_s": list(HORIZONS_S)}


@pytest.mark.parametrize("opset", [8, 13, 18, 21])
def test_opsets_of_several_years_are_taken(opset: int) -> None:
    assert run(linear(WEIGHTS, opset=opset), symmetrise=True)[0].shape == (50, len(PATH_S))


def model_with(data: bytes, *nodes: Any, **constants: Any) -> bytes:
    """The file with further nodes, whose last output has one dimension."""
    model = onnx.load_model_from_string(data)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del model.graph.output[:]
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["rows"])
    model.graph.output.append(output)
    changed: bytes = model.SerializeToString()
    return changed


def with_outputs(data: bytes, *names: str) -> bytes:
    model = onnx.load_model_from_string(data)
    for name in names:
        model.graph.node.append(helper.make_node("Identity", ["y"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]))
    changed: bytes = model.SerializeToString()
    return changed


def with_weights_elsewhere() -> bytes:
    model = onnx.load_model_from_string(linear(WEIGHTS))
    (weights,) = model.graph.initializer
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/hostname")
    weights.ClearField("raw_data")
    changed: bytes = model.SerializeToString()
    return changed


def with_sparse_weights(location: str | None = None) -> bytes:
    """Half of them; the file that `location` names has the values, if it is given."""
    model = onnx.load_model_from_string(linear(WEIGHTS))
    (dense,) = model.graph.initializer
    values = numpy_helper.from_array(WEIGHTS[:, 0].astype(np.float32), dense.name)
    if location:
        values.ClearField("raw_data")
        values.data_location = TensorProto.EXTERNAL
        values.external_data.add(key="location", value=location)
    places_of = numpy_helper.from_array(np.array([0, 4]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places_of, [2, 4]))
    del model.graph.initializer[:]
    changed: bytes = model.SerializeToString()
    return changed


def with_constant(**value: Any) -> bytes:
    """Its weights a node's attribute."""
    model = onnx.load_model_from_string(linear(WEIGHTS))
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["weights"], **value))
    changed: bytes = model.SerializeToString()
    return changed


def sparse_constant() -> bytes:
    model = onnx.load_model_from_string(with_sparse_weights("secrets.bin"))
    return with_constant(sparse_value=model.graph.sparse_initializer[0])


def of_functions(*, depth: int, itself: bool = False) -> bytes:
    """Each function uses the one before twice, or the last one itself."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = [
        helper.make_function("mine", "f0", ["a"], ["c"], [helper.make_node("Neg", ["a"], ["c"])], opsets)
    ]
    for n in range(1, depth):
        used = f"f{n if itself else n - 1}"
        nodes = [helper.make_node(used, [a], [b], domain="mine") for a, b in (("a", "b"), ("b", "c"))]
        functions.append(helper.make_function("mine", f"f{n}", ["a"], ["c"], nodes, opsets))
    last = helper.make_node(f"f{depth - 1}", ["y"], ["z"], domain="mine")
    model = onnx.load_model_from_string(linear(WEIGHTS, nodes=[last], domain="mine"))
    model.functions.extend(functions)
    model.ir_version = 8
    changed: bytes = model.SerializeToString()
    return changed


def endless() -> bytes:
    """A loop that counts to 2^63."""
    values = [helper.make_tensor_value_info("n", TensorProto.INT64, [])]
    values += [helper.make_tensor_value_info("go", TensorProto.BOOL, [])]
    values += [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["rows", 4])]
    ends = [helper.make_tensor_value_info("on", TensorProto.BOOL, [])]
    ends += [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["rows", 4])]
    steps = [helper.make_node("Identity", [a], [b]) for a, b in (("go", "on"), ("a", "b"))]
    body = helper.make_graph(steps, "body", values, ends)
    most = numpy_helper.from_array(np.array(2**63 - 1))
    return linear(
        WEIGHTS,
        nodes=[
            helper.make_node("Constant", [], ["most"], value=most),
            helper.make_node("Loop", ["most", "", "y"], ["z"], body=body),
        ],
    )


def large(of_weights: bool) -> bytes:
    """A model that adds a sum of 10⁹ zeros to its outputs, or of as many as its input says."""
    size = ["count"] if of_weights else ["y_count"]
    nodes = [
        helper.make_node("Constant", [], ["count"], value_ints=[10**9]),
        helper.make_node("ReduceMax", ["y"], ["y_most"], keepdims=0),
        helper.make_node("Ceil", ["y_most"], ["y_whole"]),
        helper.make_node("Cast", ["y_whole"], ["y_number"], to=TensorProto.INT64),
        helper.make_node("Mul", ["y_number", "count"], ["y_count"]),
        helper.make_node("ConstantOfShape", size, ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["y", "sum"], ["z"]),
    ]
    return linear(WEIGHTS, nodes=nodes)


def test_a_run_that_needs_too_much_memory_fails() -> None:
    with pytest.raises(ModelError, match="does not run on rows of 2 inputs: .*memory"):
        completed([large(of_weights=True)], description(), HEAD)
    by_input = OnnxModel(completed([large(of_weights=False)], description(), HEAD))  # seen on rows of 0 alone
    with pytest.raises(ModelError, match="the model does not run on 50 rows: .*memory"):
        check(by_input, ROWS, time.perf_counter)


def test_functions_of_a_file_and_files_of_older_tools_are_taken() -> None:
    plain = run(linear(WEIGHTS))[0]
    assert run(of_functions(depth=3))[0] == pytest.approx(plain, rel=1e-5, abs=1e-6)
    older = onnx.load_model_from_string(linear(WEIGHTS))
    older.ir_version = 3
    older.graph.input.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, [2, 4]))
    assert run(older.SerializeToString())[0] == pytest.approx(plain, rel=1e-5, abs=1e-6)


def test_many_rows_are_run_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = run(linear(WEIGHTS))
    monkeypatch.setattr(onnx_model, "BATCH_ROWS", 7)
    for some, all_ in zip(run(linear(WEIGHTS)), together, strict=True):
        assert some == pytest.approx(all_, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("files", "fields", "named"),
    [
        ([b"no model"], {}, "the file is no ONNX model"),
        ([], {}, "no file"),
        ([linear(WEIGHTS, opset=7)], {}, "its opset is 7, it should be 8 at least"),
        ([linear(WEIGHTS, dtype=TensorProto.DOUBLE)], {}, "x is no tensor of float32"),
        ([linear(WEIGHTS, rows=1)], {}, "x is of 1 rows; their number should be left open"),
        ([linear(WEIGHTS[:1])], {}, "its input x has 1 columns, its description names 2 inputs"),
        (
            [linear(WEIGHTS[:, :3])],
            {},
            "its output for 3 rows has the shape (3, 3), its description names 4 instants_s",
        ),
        ([linear(WEIGHTS)] * 3, {}, "3 files for 4 instants; it should be one, or one for each"),
        (
            [linear(WEIGHTS)] * 4,
            {},
            "its output for 3 rows has the shape (3, 4), its description names 4 instants_s and there",
        ),
        ([with_outputs(linear(WEIGHTS), "more")], {}, "it has the outputs y, more; of the short form"),
        ([linear(WEIGHTS)], {"output": "path", **WHOLE}, "its input is x of 2 columns; of output path it"),
        (
            [linear(np.zeros((28, 17)))] * 2,
            {"output": "path", **WHOLE},
            "2 files: output path is of one file",
        ),
        ([with_weights_elsewhere()], {}, "the weights weights lie in another file"),
        ([with_sparse_weights("secrets.bin")], {}, "the weights weights are sparse"),
        ([with_sparse_weights()], {}, "the weights weights are sparse"),
        ([sparse_constant()], {}, "the weights weights are sparse"),
        ([of_functions(depth=60)], {}, "it has more than 20,000 nodes, functions put in place"),
        ([of_functions(depth=2, itself=True)], {}, "the function f1 uses itself"),
        ([endless()], {}, "it has the operator Loop, which need not come to an end"),
        (
            [linear(WEIGHTS, nodes=[helper.make_node("Magic", ["y"], ["z"], domain="mine")], domain="mine")],
            {},
            "it has the operator mine.Magic, which onnxruntime alone does not know",
        ),
        (
            [*(linear(WEIGHTS[:, :1]) for _ in range(3)), linear(WEIGHTS[:, :1], opset=18)],
            {},
            "the files are of the opsets 17 and 18 of ai.onnx: convert all with the same target_opset",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_what_is_wrong(
    files: list[bytes], fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(named)):
        completed(files, description(**fields), HEAD)


def test_a_model_is_run_on_each_row_alone_where_its_card_says_so() -> None:
    sizes = []

    def run(features: Floats) -> tuple[Floats, Floats, Floats]:
        sizes.append(len(features))
        return features, 2 * features, 3 * features

    for count in (3, 0):
        outputs = row_by_row(run)(ROWS[:count])
        assert [(each == by * ROWS[:count]).all() for each, by in zip(outputs, (1, 2, 3), strict=True)]
    assert sizes == [1, 1, 1, 0]


def test_a_large_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported_onnx, "MOST_BYTES", 100)
    with pytest.raises(ModelError, match="bytes, it should be 100 at most"):
        completed([linear(WEIGHTS)], description(), HEAD)
