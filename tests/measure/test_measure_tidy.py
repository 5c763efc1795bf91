from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bigopt.measure._tidy import _names, tidy


def chatty() -> onnx.ModelProto:
    """Adds a stored tensor, then takes one of two branches that read names from outside."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])

    def branch(name: str, kind: str) -> onnx.GraphProto:
        node = helper.make_node(kind, ["sum_of_everything", "a_long_name"], [f"{name}_result"], name=f"{name}_node")
        return helper.make_graph([node], name, [], [value(f"{name}_result")], doc_string="says much")

    nodes = [
        helper.make_node("Add", ["input", "a_long_name"], ["sum_of_everything"], name="node_Add_1", doc_string="why"),
        helper.make_node("ReduceMax", ["sum_of_everything"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["is_large"]),
        helper.make_node("If", ["is_large"], ["logits"], then_branch=branch("then", "Mul"),
                         else_branch=branch("else", "Sub")),
    ]  # fmt: skip
    tensors = [
        numpy_helper.from_array(np.array([2.0, 3.0], dtype=np.float32), "a_long_name"),
        numpy_helper.from_array(np.array(10.0, dtype=np.float32), "limit"),
        numpy_helper.from_array(np.zeros(1000, dtype=np.float32), "nobody_reads_this"),
    ]
    graph = helper.make_graph(nodes, "main", [value("input")], [value("logits")], tensors, doc_string="long")
    graph.value_info.append(value("sum_of_everything"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, doc_string="longer")
    for holder in (model, graph.node[0], graph.input[0], graph.initializer[0]):
        helper.set_model_props(holder, {"secret": "trace"}) if holder is model else holder.metadata_props.add(
            key="secret", value="trace"
        )
    return model


def test_only_the_numbers_stay() -> None:
    before = chatty()
    after = tidy(chatty())
    onnx.checker.check_model(after, full_check=True)
    content = after.SerializeToString()
    for gone in (b"secret", b"trace", b"long", b"why", b"says", b"node", b"sum_of", b"nobody", b"then_result"):
        assert gone not in content.replace(b"then_branch", b"").replace(b"else_branch", b""), gone
    assert len(content) < 600 < 4000 < len(before.SerializeToString())
    for x in (np.array([[1, 2]], np.float32), np.array([[9, 9], [0, 1]], np.float32)):
        ran = [
            onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
                ["logits"], {"input": x}
            )[0]
            for m in (before, after)
        ]
        assert np.array_equal(*ran)


def test_names_are_short_and_differ() -> None:
    names = [name for name, _ in zip(_names(), range(5000), strict=False)]
    assert len(set(names)) == 5000
    assert max(map(len, names)) == 3
    assert names[:2] == ["a", "b"] and all(name.isidentifier() for name in names)
