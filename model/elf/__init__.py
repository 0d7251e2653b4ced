"""ELF and its family: codecs, processes, networks, samplers, optimisers and metrics in pure PyTorch."""

__version__ = "0.1.0"
