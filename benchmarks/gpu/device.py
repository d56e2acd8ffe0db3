"""Select the CUDA device of a script, or the CPU for a dry run."""

import argparse
import sys

import torch

from benchmarks.machine import describe

NO_DEVICE = 3
"""Exit code of a script without a CUDA device."""


def is_missing(device: torch.device, action: str) -> bool:
    """Return whether `device` is a CUDA device and there is none, and print that to stderr."""
    if device.type != "cuda" or torch.cuda.is_available():
        return False
    print(f"no CUDA device: nothing was {action} (torch {torch.__version__}, {describe()})", file=sys.stderr)
    return True


def parse_device(description: str | None) -> tuple[torch.device, str]:
    """Parse ``--device``; return the device and its name for a heading."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = torch.device(parser.parse_args().device)
    on_cuda = device.type == "cuda" and torch.cuda.is_available()
    return device, torch.cuda.get_device_name() if on_cuda else "dry run on the CPU"
