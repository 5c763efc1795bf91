"""Small networks of every topology, with something to look at."""

import torch

from bigopt import registry
from bigopt.surgery import Groups
from bigopt.vocabulary.network import Network, Normalize

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
IMAGE = {"in_channels": 1}
SPECS = {
    "mlp": {"in_features": 64, "hidden": [12, 8]},
    "resnet": {**IMAGE, "width": 4},
    "inception": {**IMAGE, "image_size": 8, "width": 16, "modules": 2},
    "mobilenet": {**IMAGE, "width": 0.25, "expand": 2},
    "hf_vision": {**IMAGE, "image_size": 8, "config": TINY},
    "hf_text": {"vocab_size": 40, "in_features": 12, "config": TINY},
}


def spec(name, **changes):
    """What a configuration would say about this model."""
    return {"name": name, **SPECS[name], **changes}


def build(spec, num_classes=10):
    """A dense network of a specification, as the pipeline builds it."""
    arguments = {key: value for key, value in spec.items() if key != "name"}
    net = registry.build("models", spec["name"], {"num_classes": num_classes, **arguments})
    if spec["name"] == "hf_text":
        return Network(net, pad_id=0)
    return Network(net, Normalize(torch.tensor([0.3]), torch.tensor([0.25]), spatial=True))


def inputs(name):
    torch.manual_seed(1)
    return torch.randint(1, 40, (4, 12)) if name == "hf_text" else torch.rand(4, 1, 8, 8)


def logits(network, name):
    with torch.no_grad():
        return network.eval()(inputs(name))


def trained(name, num_classes=10, seed=3, **changes):
    """A network with all its tensors away from their first values."""
    torch.manual_seed(seed)
    network = build(spec(name, **changes), num_classes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for key, buffer in network.named_buffers():
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return network


def prune(network, name, share=2):
    """Removes every second channel, neuron and head, so that the kept ones are not the first ones."""
    groups = Groups(network, inputs(name)[:2])
    for group in list(groups):
        groups.remove(group, range(0, group.units, share))
    return network
