"""Training across processes and machines: torchrun and Ray."""
