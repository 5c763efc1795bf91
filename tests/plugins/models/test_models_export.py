import numpy as np
import pytest
import torch
from model_nets import ARGUMENTS, inputs, small, stirred


@pytest.mark.parametrize("name", ARGUMENTS)
def test_exported_equals_original_for_every_batch_size(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    net, x = stirred(small(name)).eval(), inputs(name, 7)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        net, (x[:3],), dynamo=True, external_data=False, dynamic_shapes=({0: batch},), verbose=False
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    name_of_input = session.get_inputs()[0].name
    for rows in (1, 7):
        with torch.no_grad():
            expected = net(x[:rows]).numpy()
        assert expected.std() > 1e-2  # not all the same, which would agree too easily
        np.testing.assert_allclose(session.run(None, {name_of_input: x[:rows].numpy()})[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_traced_in_training_mode_it_trains_the_same(name):
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    changes = {"alexnet": {"dropout": 0.0}}.get(name, {})
    if name.startswith("hf_"):
        changes = {"config": {**ARGUMENTS[name]["config"], **dropout}}
    net, x = stirred(small(name, **changes)).train(), inputs(name)
    traced = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    twin = small(name, **changes).train()
    twin.load_state_dict(net.state_dict())
    grown = torch.cat([x, x.flip(0)])
    expected = twin(grown)
    torch.testing.assert_close(traced(grown), expected, atol=1e-4, rtol=1e-4)
    loss = torch.nn.functional.cross_entropy
    y = torch.arange(8)
    loss(expected, y).backward()
    loss(traced(grown), y).backward()
    gradients = dict(traced.named_parameters())
    for key, parameter in twin.named_parameters():
        assert parameter.grad is not None and gradients[key].grad is not None, key
        torch.testing.assert_close(gradients[key].grad, parameter.grad, atol=1e-4, rtol=1e-3)
