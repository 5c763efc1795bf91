"""Physical removal of channels, neurons and attention heads, shared by every method that removes something."""

from bigopt.surgery._groups import ChannelGroup, Groups, last_layer

__all__ = ["ChannelGroup", "Groups", "last_layer"]
