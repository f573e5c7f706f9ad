"""The event engine: macro-instructions against the chip's queues, ports and memories.

Compiled by Numba; time is integer picoseconds; the same input gives the same output.

Each tile has a control processor that reads its stream in order and enqueues into four in-order
queues (load, store, tensor, vector), running ahead until a queue is full. An instruction starts
when its engine is free, it has been issued, and the instructions it waits for have signalled; the
engines' signals are in order, so a wait is on one count an engine. As many programs as fit share
the scratchpad of a tile, so that one loads while another computes; a result slot may be written
again when its readers are done. Shared resources (HBM, each cluster's NoC port and CSRAM port,
each tile's ingest and egress, and the ports and banks of its scratchpad) serve requests first come,
first served, at their rate (at a cluster's NoC port what moves between SRAMs has a share while what
moves from and to HBM waits); a transfer occupies all resources on its way at once and arrives when
the slowest is through, plus latency. What an engine computes takes longer where its operands, sums
and results are not through TSRAM's ports and banks by then.

The latest instructions of a tile are kept in a window, which lets go of one only when nobody can
have to wait for it any more. Behind a very long instruction the control processor waits for that;
this is no property of the chip.

A tile that some tile of the cluster has loaded before, and that is still in the cluster's CSRAM (a
ring buffer), comes from there; one that another cluster holds comes over the NoC; otherwise HBM.

Every instruction carries the critical path to its end, split by what the time went into. The
path of the last instruction is the breakdown of the total, and adds up to it.
"""

from __future__ import annotations

import numpy as np

from asterope.sim.state import KEY, LAST, NEVER, SIZE, compiled, inlined
from asterope.sim.transfers import find, holder, load, store, through_tsram

__all__ = ["FINISHED", "grow", "play"]

FINISHED = -1
_LOAD, _STORE, _TENSOR = 0, 1, 2
_ISSUE, _C_TENSOR, _C_VECTOR, _C_NOC, _C_TSRAM = 0, 1, 2, 5, 8
_COUNT = 6
_B_TENSOR, _B_VECTOR = 5, 6
_BY_WINDOW = 5


# -- the next to start: a knockout of the tiles, in which the lower of two equals wins -------------
@inlined
def _enter(s, tile):  # type: ignore[no-untyped-def]
    """Let the earliest head of a tile's queues play against those of the other tiles."""
    time, name = s.ready_ps[tile, 0], 4 * tile
    for engine in range(1, 4):
        if s.ready_ps[tile, engine] < time:
            time, name = s.ready_ps[tile, engine], 4 * tile + engine
    at = (len(s.knockout) >> 1) + tile
    while True:
        mine = s.knockout[np.uint64(at)]
        mine.ps, mine.name = time, name
        if at == 1:
            return
        other = s.knockout[np.uint64(at ^ 1)]
        is_right = at & 1
        if other.ps < time + is_right:
            time, name = other.ps, other.name
        at >>= 1


@inlined
def _entry(s, m, tile, number):  # type: ignore[no-untyped-def]
    """Return what the window holds of an instruction."""
    return s.window[tile, np.uint64(number & m.window_mask)]


@inlined
def _head(s, m, tile, engine):  # type: ignore[no-untyped-def]
    """Return the number of the instruction at the head of a queue."""
    return s.queue[tile, engine, np.uint64(s.engine[tile, engine].head & m.queue_mask)]


@inlined
def _copy(target, source):  # type: ignore[no-untyped-def]
    for i in range(LAST + 1):
        target[i] = source[i]


# -- control processor -----------------------------------------------------------------------------
@inlined
def _fetch(s, m, p, words, fill, ended, tile, now):  # type: ignore[no-untyped-def]
    """Enqueue instructions until a queue is full; return True if the stream needs more words."""
    t = s.tile[tile]
    while True:
        at = t.position
        if at >= fill[tile]:
            return not ended[tile]
        header = words[tile, at]
        if header < 0:
            t.base = t.following
            t.program += 1
            t.share = t.share + 1 if t.share + 1 < p.at_once else 0
            t.position = at + 1
            continue
        index = header & 0xFFFFFFFF
        engine, number = p.engine[index], t.following
        e, w = s.engine[tile, engine], _entry(s, m, tile, number)
        if e.tail - e.head >= m.queue_depth:
            t.blocked = 1 + engine
            return False
        if number >= m.window and _is_needed(s, m, tile, w):
            t.blocked = _BY_WINDOW
            return False
        if t.blocked:
            t.blocked = 0
            t.fetch_ps = max(t.fetch_ps, now)
        if number >= m.window and w.end_ps > t.fetch_ps:
            t.fetch_ps = w.end_ps
            _copy(t.control_path, w.path)
        t.fetch_ps += p.issue_ps[index]
        t.control_path[_ISSUE] += p.issue_ps[index]
        numbers, waits = (header >> 32) & 0xFF, header >> 40
        w.instruction, w.end_ps, w.issued_ps = index, -1, t.fetch_ps
        _copy(w.path, t.control_path)
        w.key = words[tile, at + 1] if numbers == 2 else 0
        w.size = words[tile, at + 2] if numbers == 2 else 0
        if p.gather[index]:
            w.size *= max(w.key, m.granule)
        t.following = number + 1
        _dependencies(
            s, m, p, words[tile, at + 1 + numbers : at + 1 + numbers + waits], tile, number
        )
        s.queue[tile, engine, np.uint64(e.tail & m.queue_mask)] = number
        e.tail += 1
        t.position = at + 1 + numbers + waits
        s.counters[_COUNT] += 1
        _try(s, m, p, tile, engine)


@inlined
def _is_forgotten(s, m, tile, number):  # type: ignore[no-untyped-def]
    """Whether an instruction has left the window, having signalled before any queued was issued."""
    return number < s.tile[tile].following - m.window


@inlined
def _is_needed(s, m, tile, w):  # type: ignore[no-untyped-def]
    """Whether a queued instruction may have to wait for one that would be forgotten."""
    t = s.tile[tile]
    if w.end_ps < 0:
        return True
    if w.end_ps <= t.settled_ps:
        return False
    t.settled_ps = t.fetch_ps
    for i in range(4):
        e = s.engine[tile, i]
        if e.head != e.tail:
            issued = _entry(s, m, tile, _head(s, m, tile, i)).issued_ps
            t.settled_ps = min(t.settled_ps, issued)
            if issued < w.end_ps:
                return True
    return False


@inlined
def _dependencies(s, m, p, tokens, tile, number):  # type: ignore[no-untyped-def]
    """Turn awaited results and the result slot's readers into one count to wait for an engine."""
    w = _entry(s, m, tile, number)
    index = w.instruction
    engine = p.engine[index]
    for e in range(4):
        w.waits[e] = -1
    for token in tokens:
        producer = s.tile[tile].base + token
        if token < 0 or _is_forgotten(s, m, tile, producer):
            continue
        source = _entry(s, m, tile, producer)
        of = p.engine[source.instruction]
        w.waits[of] = max(w.waits[of], producer)
        s.readers[tile, source.instruction, source.slot, engine] = number
    slot, depth = s.slot[tile, index], p.depth[index]
    if slot.program != s.tile[tile].program:
        slot.program, slot.next = s.tile[tile].program, 0
    w.slot = s.tile[tile].share * depth + slot.next
    slot.next = slot.next + 1 if slot.next + 1 < depth else 0
    for e in range(4):
        reader = s.readers[tile, index, w.slot, e]
        if reader != number:
            w.waits[e] = max(w.waits[e], reader)
            s.readers[tile, index, w.slot, e] = -1


@inlined
def _try(s, m, p, tile, engine):  # type: ignore[no-untyped-def]
    """Say when a queue's head may start, if everything it waits for has a known end."""
    e = s.engine[tile, engine]
    if s.ready_ps[tile, engine] != NEVER or e.head == e.tail:
        return
    if e.awaited >= 0:
        if s.engine[tile, e.awaited_engine].last < e.awaited:
            return
        e.awaited = -1
    w = _entry(s, m, tile, _head(s, m, tile, engine))
    fill = p.fill_ps[w.instruction]
    ready = max(e.free_ps, w.issued_ps + fill)
    for i in range(4):
        awaited = w.waits[i]
        if awaited < 0 or _is_forgotten(s, m, tile, awaited):
            continue
        end = _entry(s, m, tile, awaited).end_ps
        if end < 0:
            e.awaited, e.awaited_engine = awaited, i
            return
        # What follows in the tensor unit streams in behind: it is in order.
        if i != _TENSOR or engine != _TENSOR:
            ready = max(ready, end + fill)
    if engine == _LOAD:
        oldest = s.channel[tile, s.tile[tile].next_channel]
        if oldest >= 0 and not _is_forgotten(s, m, tile, oldest):
            ready = max(ready, _entry(s, m, tile, oldest).end_ps)
    s.ready_ps[tile, engine] = ready


# -- execution -------------------------------------------------------------------------------------
@inlined
def _cause(s, m, p, tile, engine, number, ready, path):  # type: ignore[no-untyped-def]
    """Put the critical path that led to this start over the one that led to the issue."""
    w, e = _entry(s, m, tile, number), s.engine[tile, engine]
    fill = p.fill_ps[w.instruction]
    if w.issued_ps + fill == ready:
        path[_C_TENSOR] += fill
        return
    for i in range(4):
        awaited = w.waits[i]
        if awaited >= 0 and not _is_forgotten(s, m, tile, awaited):
            source = _entry(s, m, tile, awaited)
            if source.end_ps + fill == ready and (i != _TENSOR or engine != _TENSOR):
                _copy(path, source.path)
                path[_C_TENSOR] += fill
                return
    if engine <= _STORE and e.free_ps == ready:
        _copy(path, e.start_path)
        return
    before = e.last
    if engine == _LOAD:
        before = s.channel[tile, s.tile[tile].next_channel]
    _copy(path, _entry(s, m, tile, before).path)


@inlined
def _start(s, m, p, table, tile, engine, ready, trace):  # type: ignore[no-untyped-def]
    """Execute the head of a queue at its ready time."""
    e, t = s.engine[tile, engine], s.tile[tile]
    number = _head(s, m, tile, engine)
    e.head += 1
    s.ready_ps[tile, engine] = NEVER
    w = _entry(s, m, tile, number)
    index, path = w.instruction, w.path
    _cause(s, m, p, tile, engine, number, ready, path)
    if engine <= _STORE:
        _copy(e.start_path, path)
    if t.blocked and ready > t.fetch_ps:
        _copy(t.control_path, path)
    cause = path[LAST]
    trace.used[0] += 1
    path[LAST] = trace.used[0]
    if engine == _LOAD:
        end = load(s, m, p, table, tile, ready, w)
        s.channel[tile, t.next_channel] = number
        t.next_channel = t.next_channel + 1 if t.next_channel + 1 < m.channels else 0
        e.free_ps = ready
    elif engine == _STORE:
        end = store(s, m, p, tile, ready, w)
        e.free_ps = ready
    else:
        length = p.duration_ps[index]
        end = ready + length
        through = through_tsram(s, p, tile, ready, index, 1)
        path[_C_TENSOR if engine == _TENSOR else _C_VECTOR] += length
        s.busy_ps[_B_TENSOR if engine == _TENSOR else _B_VECTOR] += length
        if through > end:
            path[_C_TSRAM] += through - end
            end = through
        e.free_ps = end
    # Signals of an engine come in order.
    before = _entry(s, m, tile, e.last)
    if e.last >= 0 and before.end_ps > end and not _is_forgotten(s, m, tile, e.last):
        end = before.end_ps
        _copy(path, before.path)
    e.last = number
    w.end_ps = end
    if end > s.chip[0].finish:
        s.chip[0].finish = end
        _copy(s.chip[0].finish_path, path)
    if trace.used[0] <= len(trace.rows):
        row = trace.rows[trace.used[0] - 1]
        row[0], row[1], row[2], row[3], row[4], row[5] = tile, index, ready, end, w.size, number
        row[6] = cause
        for i in range(4):
            row[7 + i] = w.waits[i]


@inlined
def _drain(s):  # type: ignore[no-untyped-def]
    """Wait for what traffic between SRAMs has displaced at the clusters' ports."""
    chip = s.chip[0]
    for cluster in range(len(s.noc_free)):
        for way in range(2):
            late = s.noc_free[cluster, way, 0] - chip.finish
            if late > 0:
                chip.finish += late
                chip.finish_path[_C_NOC] += late


@compiled
def play(s, m, p, table, words, fill, ended, trace):  # type: ignore[no-untyped-def]
    """Play until all is done (FINISHED) or something is needed; call again to go on.

    Otherwise the tile whose stream needs more words is returned, or, where the result is the
    number of tiles, the table needs to grow.
    """
    for each in range(m.num_tiles):
        if _fetch(s, m, p, words, fill, ended, each, 0):
            return each
        _enter(s, each)
    while s.knockout[1].ps != NEVER:
        if 2 * table.used[0] > len(table.rows):
            return m.num_tiles
        # Shifted as unsigned, so that an index is known not to count from the end.
        ready, name = s.knockout[1].ps, np.uint64(s.knockout[1].name)
        tile, engine = np.int64(name >> np.uint64(2)), np.int64(name & np.uint64(3))
        _start(s, m, p, table, tile, engine, ready, trace)
        for i in range(4):
            _try(s, m, p, tile, i)
        blocked = s.tile[tile].blocked
        may_fetch = blocked in (0, 1 + engine, _BY_WINDOW)
        if may_fetch and _fetch(s, m, p, words, fill, ended, tile, ready):
            return tile
        _enter(s, tile)
    _drain(s)
    return FINISHED


@compiled
def grow(s, old, new):  # type: ignore[no-untyped-def]
    """Copy what is still staged somewhere into a larger table."""
    for i in range(len(old.rows)):
        source = old.rows[i]
        if source[SIZE] == 0 or holder(s, old, i, 0) < 0:
            continue
        target = new.rows[find(new, source[KEY], source[SIZE])]
        for column in range(len(source)):
            target[column] = source[column]
        new.used[0] += 1
