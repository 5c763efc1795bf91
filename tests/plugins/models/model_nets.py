"""Every built-in model in a small size, with an input for it."""

import torch

from bigopt import registry
from bigopt.vocabulary.network import Network, Normalize

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
IMAGE = {"in_channels": 1, "num_classes": 10}
TOKENS = 40

ARGUMENTS = {
    "mlp": {"in_features": 64, "num_classes": 10, "hidden": (16, 12)},
    "lenet5": {**IMAGE, "image_size": 8},
    "alexnet": {**IMAGE, "image_size": 8, "width": 0.03},
    "vgg": {**IMAGE, "image_size": 8, "depth": 11, "width": 0.06},
    "inception": {**IMAGE, "image_size": 8, "width": 16, "modules": 1},
    "resnet": {**IMAGE, "width": 8, "depth": (1, 1)},
    "mobilenet": {**IMAGE, "width": 0.25, "expand": 2, "depth": (1, 2)},
    "hf_vision": {**IMAGE, "image_size": 8, "config": TINY},
    "hf_text": {"vocab_size": TOKENS, "num_classes": 10, "in_features": 12, "config": TINY},
}


def small(name, seed=0, **changes):
    """A fresh network around a small model."""
    torch.manual_seed(seed)
    net = registry.load("models", name)(**{**ARGUMENTS[name], **changes})
    if name == "hf_text":
        return Network(net, pad_id=0)
    return Network(net, Normalize(torch.tensor([0.3]), torch.tensor([0.25]), spatial=True))


def inputs(name, rows=4):
    """Images, or texts of which one is padded."""
    torch.manual_seed(1)
    if name != "hf_text":
        return torch.rand(rows, 1, 8, 8)
    ids = torch.randint(1, TOKENS, (rows, 12))
    ids[0, 5:] = 0
    return ids


def stirred(network):
    """The network with every tensor away from the values that initialisation gives, such as a norm's zero bias."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return network
