"""The work of a call of machine code, shared by threads: turns, each cut into parts that whoever is free takes.

A thread waits for others only at the end of a turn, for parts that they have begun. So nobody waits for a thread that
the system does not run: it comes late, finds nothing left to take and leaves. OpenMP's threads would wait for one
another at each of these ends, and beside torch's, which wait for their own next work in a loop, they would hardly run.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.machine_code import Array, compiled, hash_of
from models.threads import LINE

SOURCE = hash_of(Path(__file__))  # functions that call these are compiled anew when it changes
NONE = -1
VOID, FLAG, SIZE = ir.VoidType(), ir.IntType(32), ir.IntType(64)
PARTS = 8  # of a thread's share of a turn
PAUSES = 200  # until a waiting thread lets the system run others: some 10 µs, as long as a part takes
X86 = platform.machine() in ("x86_64", "AMD64")
YIELDS = os.name == "posix"


class Team(NamedTuple):
    """How far all threads are, and this one."""

    board: Array  # int64 [turns, 1 + threads, LINE]: how many parts are done, and how many of each thread's are taken
    number: int  # of this thread
    turn: Array  # int64 [1]: of this thread


@intrinsic
def _add_one(context: Any, board: Any, place: Any) -> Any:
    """Adds 1 to a counter; -> what it was. What this thread wrote before is seen by those that read the counter."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _counter(context, builder, signature, arguments), SIZE(1), "acq_rel")

    return types.int64(board, types.intp), build


@intrinsic
def _read(context: Any, board: Any, place: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_counter(context, builder, signature, arguments), "acquire", 8)

    return types.int64(board, types.intp), build


def _counter(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@intrinsic
def _pause(context: Any) -> Any:
    """Spares the other half of a core."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if X86:
            builder.call(_outside(builder, VOID, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def _let_others_run(context: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if YIELDS:
            builder.call(_outside(builder, FLAG, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), build


def _outside(builder: Any, result: Any, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, []), name)


@compiled
def parts_of(team: Team, count: int) -> int:
    """Into how many parts a turn of `count` equal pieces is cut."""
    return min(count, PARTS * (team.board.shape[1] - 1))


@compiled
def take(team: Team, parts: int, done: int) -> int:
    """A part of this turn, below `parts`, that is this thread's now; `NONE` when all are done, which ends the turn.

    Each thread begins with its own share, in order, and goes on with what is left of others'. `done` is the part that
    this thread was given before and has finished, or `NONE`. Raises `IndexError` in a turn beyond the board.
    """
    if team.turn[0] >= team.board.shape[0]:
        raise IndexError("more turns than Threads.run was told")  # beyond the board all would wait for ever
    threads = team.board.shape[1] - 1
    board, at = team.board.reshape(-1), team.turn[0] * team.board[0].size
    if done != NONE:
        _add_one(board, at)
    for number in range(threads):
        owner = (team.number + number) % threads
        first, end = parts * owner // threads, parts * (owner + 1) // threads
        counter = at + LINE * (1 + owner)
        if first + _read(board, counter) < end:
            part = first + _add_one(board, counter)
            if part < end:
                return part
    tries = 0
    while _read(board, at) < parts:
        tries += 1
        if tries < PAUSES:
            _pause()
        else:
            _let_others_run()
    team.turn[0] += 1
    return NONE


@compiled
def member(board: Array, number: int) -> Team:
    return Team(board, number, np.zeros(1, np.int64))
