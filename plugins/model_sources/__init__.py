"""Networks in other formats, and TorchScript in other runtimes."""
