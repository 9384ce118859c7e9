"""The model as an ONNX file: written once by the trainer, run by onnxruntime where it serves.

Input `features` (N, F) float32; outputs `move_bp`, `scale_bp` and `p_flat`, each (N, J) float32, for the
instants of `PATH_S`. The choice of inputs and the volatility scaling are inside the file: the feature vector
is the whole interface.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.forecast import PATH_S, ModelError, RunModel
from tickcast.model.network import DAMPED_WITHIN, DAMPING, HAS_QUOTES, SIGMA, Inputs, Network, places

OPSET = 17
BATCH_ROWS = 8192  # at once: a wide layer of an imported model takes megabytes for so many
MOST_RUN_BYTES = 256 * 2**20  # of all models in a process: their weights, and what a run holds at once
_IR_VERSION = 9
_OUTPUTS = ("move_bp", "scale_bp", "p_flat")
# Operator, inputs, output: `Network.forward`, after each part's features were picked.
_OPERATIONS = (
    ("MatMul", "sigma root_t", "scale_bp"),
    ("MatMul", "odd A", "driven"),
    ("MatMul", "even B", "even_B"),
    ("Add", "even_B c", "shared"),
    ("Add", "shared driven", "plus"),
    ("Sub", "shared driven", "minus"),
    ("Sigmoid", "plus", "plus_gate"),
    ("Mul", "plus plus_gate", "plus_silu"),
    ("Sigmoid", "minus", "minus_gate"),
    ("Mul", "minus minus_gate", "minus_silu"),
    ("Sub", "plus_silu minus_silu", "difference"),
    ("MatMul", "difference half_W", "bent"),
    ("MatMul", "odd L", "straight"),
    ("Add", "straight bent", "quoted"),
    ("Mul", "has_quotes knows_quotes", "uses_quotes"),
    ("Mul", "quoted uses_quotes", "quoted_part"),
    ("MatMul", "masked M", "unquoted"),
    ("Sub", "one uses_quotes", "has_none"),
    ("Mul", "unquoted has_none", "unquoted_part"),
    ("Add", "quoted_part unquoted_part", "move"),
    ("Div", "sigma usual_sigma", "ratio"),
    ("Clip", "ratio damped_from damped_to", "clipped"),
    ("Pow", "clipped damping", "damped"),
    ("Mul", "move damped", "damped_move"),
    ("Mul", "damped_move scale_bp", "move_bp"),
    ("MatMul", "flat flat_weights", "flat_driven"),
    ("Add", "flat_driven flat_bias", "flat_logit"),
    ("Sigmoid", "flat_logit", "p_flat"),
)


def export(network: Network) -> bytes:
    """The ONNX file of `network`. Raises `ModelError` when it does not compute what the network computes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    picks = _picks(network.inputs)
    initializers = [
        numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in _constants(network).items()
    ]
    initializers += [numpy_helper.from_array(places(names), f"at_{part}") for part, names in picks.items()]
    nodes = [helper.make_node("Gather", ["features", f"at_{part}"], [part], axis=1) for part in picks]
    nodes += [
        helper.make_node(operator, inputs.split(), [output]) for operator, inputs, output in _OPERATIONS
    ]
    shape: list[str | int | None] = ["rows", len(PATH_S)]
    graph = helper.make_graph(
        nodes,
        "tickcast",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(FEATURE_NAMES)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in _OUTPUTS],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="tickcast",
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    _check_equal(network, OnnxModel(data))
    return data


def _constants(network: Network) -> dict[str, Any]:
    """Under the names of `model.network`'s formula where there is one."""
    return {
        "L": network.skip,
        "A": network.hidden_odd,
        "B": network.hidden_even,
        "c": network.hidden_bias,
        "half_W": 0.5 * network.out,
        "M": network.masked_skip,
        "usual_sigma": network.usual_sigma,
        "damped_from": np.array(DAMPED_WITHIN[0]),
        "damped_to": np.array(DAMPED_WITHIN[1]),
        "damping": DAMPING[None, :],
        "knows_quotes": network.knows_quotes,
        "flat_weights": network.flat,
        "flat_bias": network.flat_bias,
        "root_t": np.sqrt(np.array(PATH_S))[None, :],
        "one": np.ones(1),
    }


def _picks(inputs: Inputs) -> dict[str, tuple[str, ...]]:
    """The features that each part reads."""
    return {
        "odd": inputs.odd,
        "even": inputs.even,
        "masked": inputs.masked,
        "flat": inputs.flat,
        "has_quotes": ("has_quotes",),
        "sigma": ("sigma_bp",),
    }


@functools.cache
def _bound_memory() -> None:
    """Limit what sessions that use the process's allocator may take: an imported model can have sizes that
    depend on its weights or inputs, and the function would be killed where such a run should fail."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    limits = onnxruntime.OrtArenaCfg({"max_mem": MOST_RUN_BYTES})
    onnxruntime.create_and_register_allocator(memory, limits)


def session_of(data: bytes) -> Any:
    """An onnxruntime session of a model, whose runs fail if they need more than `MOST_RUN_BYTES`. Raises
    `ModelError` when it cannot be loaded."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the network is far too small to parallelise
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_env_allocators", "1")
    unbounded = ["ConstantFolding"]  # it would compute constants in other memory
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], disabled_optimizers=unbounded
        )
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        raise ModelError(f"not a model onnxruntime can load: {error}") from error


class OnnxModel:
    """A loaded model: called with features (N, F), it returns `move_bp`, `scale_bp`, `p_flat`, each (N,
    J)."""

    def __init__(self, data: bytes) -> None:
        """Raises `ModelError` when `data` is no ONNX model from our features to the instants of `PATH_S`."""
        self._session = session_of(data)
        features = self._session.get_inputs()[0].shape[-1]
        if features != len(FEATURE_NAMES):
            raise ModelError(f"the model takes {features} features, this code computes {len(FEATURE_NAMES)}")
        instants = {output.shape[-1] for output in self._session.get_outputs()}
        if other := sorted(map(str, instants - {len(PATH_S)})):
            raise ModelError(f"the model forecasts {', '.join(other)} instants, this code {len(PATH_S)}")

    def __call__(self, features: Floats) -> tuple[Floats, Floats, Floats]:
        if len(features) <= BATCH_ROWS:
            return self._run(features)
        batches = [self._run(features[at : at + BATCH_ROWS]) for at in range(0, len(features), BATCH_ROWS)]
        move_bp, scale_bp, p_flat = (np.concatenate(column) for column in zip(*batches, strict=True))
        return move_bp, scale_bp, p_flat

    def _run(self, features: Floats) -> tuple[Floats, Floats, Floats]:
        move_bp, scale_bp, p_flat = self._session.run(_OUTPUTS, {"features": features.astype(np.float32)})
        return move_bp.astype(float), scale_bp.astype(float), p_flat.astype(float)


def row_by_row(run: RunModel) -> RunModel:
    """`run` on each row alone, so that a row's bits do not depend on the rows around it."""

    def each(features: Floats) -> tuple[Floats, Floats, Floats]:
        rows = [run(features[at : at + 1]) for at in range(len(features))] or [run(features)]
        move_bp, scale_bp, p_flat = (np.concatenate(column) for column in zip(*rows, strict=True))
        return move_bp, scale_bp, p_flat

    return each


def _check_equal(network: Network, exported: OnnxModel) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (64, len(FEATURE_NAMES)))
    features[:, SIGMA] = np.abs(features[:, SIGMA]) + 0.05
    features[:, HAS_QUOTES] = rng.integers(0, 2, len(features))
    for ours, theirs in zip(network.forward(features), exported(features), strict=True):
        if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
            worst = float(np.abs(ours - theirs).max())
            raise ModelError(f"the exported model differs from the trained one by {worst}")
