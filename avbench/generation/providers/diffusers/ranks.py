"""Runs one pipeline over several devices, each with a part of the sequence: context parallelism (Ulysses).

This process is rank 0 and holds the pipeline as usual. The other ranks are processes that hold the same pipeline and
receive every call. If one fails, all end, and the pipeline has to be loaded again. This was run over gloo with CPU
processes, where its clips equal those of one process; it was not run over NCCL.
"""

import contextlib
import multiprocessing
import unittest.mock
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from avbench.core import InputError, first_line
from avbench.generation.diffusers_package import diffusers, silenced
from avbench.generation.providers.diffusers.loading import Placement, Sampler, Source, load, transformers_of

_LONGEST = timedelta(minutes=30)
_GRACE_SECONDS = 3


class Ranks:
    """The processes of the other ranks, and this process's membership in the group."""

    def __init__(self, source: Source, placement: Placement, sampler: Sampler, pipe: Any) -> None:
        """Start them and add `pipe` to their group. Raises InputError if one cannot load the pipeline or join."""
        spawn = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        processes = []
        self._end = weakref.finalize(self, _end, self._ends, processes)
        try:
            for rank in range(1, placement.context_parallel):
                ours, theirs = spawn.Pipe()
                process = spawn.Process(target=_serve, args=(theirs, rank, source, placement, sampler), daemon=True)
                process.start()
                processes.append(process)
                theirs.close()
                self._ends.append(ours)
            for rank, end in enumerate(self._ends, 1):
                if (trouble := _received(end)) is not None:
                    msg = f"rank {rank} of {placement.context_parallel} cannot load {source.folder}: {trouble}"
                    raise InputError(msg)
            store = _store(0, placement)
            self._send(store.port)
            _join(pipe, 0, store, placement)
        except Exception as error:
            self.end()
            if isinstance(error, InputError):
                raise
            msg = f"-M context_parallel={placement.context_parallel}: {first_line(error)}"
            raise InputError(msg) from error

    def ask(self, call: Mapping[str, Any], seed: int) -> None:
        """Send the other ranks the call that this rank makes next."""
        self._send((dict(call), seed))

    def end(self) -> None:
        """End the other ranks and leave the group."""
        self._end()

    def _send(self, what: Any) -> None:
        for end in self._ends:
            end.send(what)


def fresh(pipe: Any, seed: int) -> Any:
    """The noise of a seed, the same on every rank; the pipeline forgets what it made before.

    Parts that draw noise without the generator, as LTX-Video's VAE does, take it from torch's own state.
    """
    import torch

    for part in pipe.components.values():
        if hasattr(part, "_reset_stateful_cache"):  # a call that failed leaves it
            part._reset_stateful_cache()
    torch.manual_seed(seed)
    return torch.Generator("cpu").manual_seed(seed)


def _serve(end: Connection, rank: int, source: Source, placement: Placement, sampler: Sampler) -> None:
    import torch

    if placement.device == "cpu":
        torch.set_num_threads(1)
    try:
        own = placement.device if placement.device == "cpu" else f"cuda:{rank}"
        if own != "cpu":
            torch.cuda.set_device(own)  # where NCCL and kernels of attention run that are not torch's own
        pipe = load(source, replace(placement, device=own), sampler)
    except Exception as error:
        end.send(first_line(error))
        return
    end.send(None)
    with contextlib.suppress(EOFError):  # rank 0 has ended
        if (port := end.recv()) is None:
            return
        _join(pipe, rank, _store(port, placement), placement)
        while (asked := end.recv()) is not None:
            call, seed = asked
            with torch.inference_mode():
                pipe(**call, generator=fresh(pipe, seed))


def _store(port: int, placement: Placement) -> Any:
    """Where the ranks meet; with port 0 it is made, at a port that is free now."""
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    return TCPStore("127.0.0.1", port, placement.context_parallel, port == 0, _LONGEST, wait_for_workers=False)


def _join(pipe: Any, rank: int, store: Any, placement: Placement) -> None:
    import torch
    from torch import distributed

    cpu = placement.device == "cpu"
    distributed.init_process_group(
        "gloo" if cpu else "nccl",
        store=store,
        rank=rank,
        world_size=placement.context_parallel,
        timeout=_LONGEST,
    )
    # diffusers divides by the number of accelerators, even if there is none
    one = unittest.mock.patch.object(torch.accelerator, "device_count", lambda: 1)
    with one if cpu else contextlib.nullcontext(), silenced():
        for dit in transformers_of(pipe):
            config = diffusers().ContextParallelConfig(ulysses_degree=placement.context_parallel)
            dit.enable_parallelism(config=config)


def _received(end: Connection) -> str | None:
    try:
        return end.recv()
    except EOFError:
        return "it died"


def _end(ends: Sequence[Connection], processes: Sequence[Any]) -> None:
    from torch import distributed

    for end in ends:
        with contextlib.suppress(OSError):  # it has already ended
            end.send(None)
    for process in processes:
        process.join(_GRACE_SECONDS)
        process.kill()  # it may be waiting for a rank that has ended
        process.join()
    for end in ends:
        end.close()
    if distributed.is_initialized():
        distributed.destroy_process_group()
