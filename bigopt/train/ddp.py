"""Several processes that run the same pipeline on their share of every batch; rank 0 writes.

Ranks are started by :func:`launch` with one command each (the resolved configuration, never a repetition of what the
user typed) and find each other through ``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from bigopt.train.launch import dead_rank, launch

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

__all__ = [
    "agree",
    "barrier",
    "broadcast_object",
    "broadcast_state",
    "gather",
    "join",
    "launch",
    "leave",
    "rank",
    "strategy",
    "world_size",
    "wrap_again",
]

T = TypeVar("T")

TIMEOUT = timedelta(days=1)
"""How long a rank waits for another that lives: it may be measuring, or waiting for a training in the cache."""


def rank() -> int:
    """Number of this process among the ranks; 0 without any."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """Number of ranks; 1 outside :func:`launch`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Joins the group of ranks, unless that has happened; does nothing without ranks.

    Without ``OMP_NUM_THREADS`` the ranks share out the machine's cores.

    Raises:
        RuntimeError: a rank ended before it joined.
    """
    import torch
    import torch.distributed as dist

    if world_size() == 1 or dist.is_initialized():
        return
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world_size()))
    store: Any = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size(),
        is_master=rank() == 0,
        timeout=TIMEOUT,
        wait_for_workers=False,
    )
    store.set(f"here/{rank()}", "1")
    if rank() == 0:
        while not store.check([f"here/{number}" for number in range(world_size())]):
            if dead_rank() is not None:
                raise RuntimeError("another rank ended before it joined")  # `launch` says which and why
            time.sleep(0.02)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size(), timeout=TIMEOUT)


def leave() -> None:
    """Leaves the group of ranks if this process is in one."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Waits until every rank is here."""
    if world_size() > 1:
        agree(0)


def broadcast_object(obj: T) -> T:
    """Rank 0's object on every rank."""
    if world_size() == 1:
        return obj
    import torch.distributed as dist

    join()
    box: list[Any] = [obj]
    dist.broadcast_object_list(box, src=0, device=_cpu())
    result: T = box[0]
    return result


def gather(obj: T) -> list[T]:
    """Every rank's object, in the order of ranks, on every rank."""
    if world_size() == 1:
        return [obj]
    import torch.distributed as dist

    join()
    objects: list[Any] = []
    for source in range(world_size()):  # not all_gather_object: that one travels through the GPUs where there are some
        box: list[Any] = [obj]
        dist.broadcast_object_list(box, src=source, device=_cpu())
        objects.append(box[0])
    return objects


def agree(value: int) -> int:
    """The largest of the ranks' numbers."""
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as dist

    join()
    box = torch.tensor([value], device="cpu")
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box)


def broadcast_state(module: nn.Module) -> None:
    """Gives every rank rank 0's parameters and buffers."""
    if world_size() == 1:
        return
    import torch
    import torch.distributed as dist

    join()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            dense = tensor.detach().contiguous()
            dist.broadcast(dense, src=0)
            tensor.detach().copy_(dense)


def strategy() -> Any:
    """Lightning's DDP over ranks that already run."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from pytorch_lightning.strategies import DDPStrategy

    class Ranks(LightningEnvironment):
        """Ranks that exist before and after the fit."""

        def teardown(self) -> None:
            """Leaves WORLD_SIZE alone, which Lightning would delete."""

    join()
    return DDPStrategy(
        cluster_environment=Ranks(),
        # a Part's branch may leave a parameter out of one step's graph
        find_unused_parameters=True,
    )


def wrap_again(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Wraps the module anew after the set of trainable parameters changed: DDP averages what it saw when it began."""
    if world_size() == 1:
        return
    trainer.strategy.model = module
    trainer.strategy.model = trainer.strategy._setup_model(module)


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
