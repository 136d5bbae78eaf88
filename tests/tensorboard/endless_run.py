"""Watches a run without end; says each step when it is written."""

import sys
from itertools import count

import torch
from torch import nn

from gradlab import Monitor
from gradlab.tensorboard import EventFileWriter


def main(folder: str) -> None:
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    monitor = Monitor(model, sinks=[EventFileWriter(folder)])
    for step in count():
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, step + 1.0)
        monitor.observe(step, "applied")
        print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
