"""Transfers: shared resources served first come, first served, and tiles staged in CSRAM."""

from __future__ import annotations

import numpy as np

from asterope.sim.state import RING, compiled

__all__ = ["find", "holder", "load", "store"]

_C_HBM, _C_CSRAM, _C_NOC, _C_PORT, _C_LATENCY = 3, 4, 5, 6, 7
_HBM_READ, _HBM_WRITTEN, _NOC, _CSRAM, _TSRAM_WRITTEN, _TSRAM_READ = range(6)
_B_HBM, _B_CSRAM, _B_NOC, _B_INGEST, _B_EGRESS = range(5)
_CSRAM_SPACE, _TSRAM_SPACE = 1, 2


@compiled
def find(table, key, size):  # type: ignore[no-untyped-def]
    """Return the entry of a key, or the free one where it would go."""
    mask = len(table.entry) - 1
    mixed = (key ^ (size << 7)) * np.int64(-7046029254386353131)
    at = (mixed >> 17) & mask
    while True:
        entry = table.entry[at]
        if entry.size == 0 or (entry.key == key and entry.size == size):
            return at
        at = (at + 1) & mask


@compiled
def _stage(s, m, table, at, key, size, cluster, ready):  # type: ignore[no-untyped-def]
    """Note that a tile will be in a cluster's CSRAM, letting the oldest tiles go."""
    if size > m.csram_bytes:
        return
    entry = table.entry[at]
    if entry.size == 0:
        entry.key, entry.size = key, size
        table.used[0] += 1
    c = s.cluster[cluster]
    while c.ring_used + size > m.csram_bytes or c.ring_next - c.ring_first >= RING:
        c.ring_used -= s.ring_bytes[cluster, c.ring_first & (RING - 1)]
        c.ring_first += 1
    s.ring_bytes[cluster, c.ring_next & (RING - 1)] = size
    c.ring_used += size
    entry.serial[cluster] = c.ring_next
    entry.ready_ps[cluster] = ready
    c.ring_next += 1


@compiled
def _duration(size, rate):  # type: ignore[no-untyped-def]
    return np.int64(np.ceil(size / rate))


@compiled
def holder(s, table, at, cluster):  # type: ignore[no-untyped-def]
    """Return the nearest cluster that has, or will have, a tile in its CSRAM, or -1."""
    clusters = len(s.cluster)
    for i in range(clusters):
        c = (cluster + i) % clusters
        if table.entry[at].serial[c] >= s.cluster[c].ring_first:
            return c
    return -1


@compiled
def _through_csram(s, m, cluster, now, size):  # type: ignore[no-untyped-def]
    """Move bytes through the CSRAM port of a cluster; return when they are through."""
    here = s.cluster[cluster]
    length = _duration(size, m.csram)
    here.csram_free = max(now, here.csram_free) + length
    s.busy_ps[_B_CSRAM] += length
    s.counters[_CSRAM] += size
    return here.csram_free


@compiled
def _from_sram(s, m, table, at, source, cluster, now, size):  # type: ignore[no-untyped-def]
    """Read a tile from the CSRAM of a cluster; return when it is out, and what was slowest."""
    # Another tile asked first: the bytes may still be on their way to that CSRAM.
    slowest, category = max(now, table.entry[at].ready_ps[source]), _C_HBM
    end = _through_csram(s, m, source, now, size)
    if end > slowest:
        slowest, category = end, _C_CSRAM
    if source != cluster:
        there = s.cluster[source]
        length = _duration(size, m.noc)
        there.noc_out_free = max(now, there.noc_out_free) + length
        s.busy_ps[_B_NOC] += length
        if there.noc_out_free > slowest:
            slowest, category = there.noc_out_free, _C_NOC
    return slowest, category


@compiled
def _from_hbm(s, m, now, size):  # type: ignore[no-untyped-def]
    """Read bytes from HBM; return when they are out."""
    length = _duration(size, m.hbm)
    chip = s.chip[0]
    chip.hbm_free = max(now, chip.hbm_free) + length
    s.busy_ps[_B_HBM] += length
    s.counters[_HBM_READ] += size
    return chip.hbm_free


@compiled
def _into_cluster(s, m, cluster, now, size, shared):  # type: ignore[no-untyped-def]
    """Take bytes in through a cluster's NoC port, and write what is shared to its CSRAM."""
    here = s.cluster[cluster]
    length = _duration(size, m.noc)
    here.noc_in_free = max(now, here.noc_in_free) + length
    s.busy_ps[_B_NOC] += length
    s.counters[_NOC] += size
    if not shared:
        return here.noc_in_free, _C_NOC
    end = _through_csram(s, m, cluster, now, size)
    if end > here.noc_in_free:
        return end, _C_CSRAM
    return here.noc_in_free, _C_NOC


@compiled
def load(s, m, table, tile, now, entry, shared, space):  # type: ignore[no-untyped-def]
    """Move a tile of memory into TSRAM; return when it is there and add the way to the path.

    Each resource on the way is reserved from now on; the tile is there when the slowest is
    through, plus latency.
    """
    key, size, path = entry.key, entry.size, entry.path
    s.counters[_TSRAM_WRITTEN] += size
    if size == 0 or space == _TSRAM_SPACE:
        path[_C_LATENCY] += m.dma_ps
        return now + m.dma_ps
    cluster = m.cluster_of[tile]
    source, at, latency = -1, 0, m.dma_ps
    if shared:
        at = find(table, key, size)
        if table.entry[at].size != 0:
            source = holder(s, table, at, cluster)
    if space == _CSRAM_SPACE:
        source = cluster
        slowest, category = _through_csram(s, m, cluster, now, size), _C_CSRAM
        latency += m.csram_latency_ps
    elif source >= 0:
        slowest, category = _from_sram(s, m, table, at, source, cluster, now, size)
        latency += m.csram_latency_ps + abs(source - cluster) * m.hop_ps
    else:
        slowest, category = _from_hbm(s, m, now, size), _C_HBM
        latency += m.hbm_latency_ps
    if source != cluster:
        end, other = _into_cluster(s, m, cluster, now, size, shared)
        if end > slowest:
            slowest, category = end, other
        if shared:
            _stage(s, m, table, at, key, size, cluster, slowest + latency)
    length = _duration(size, m.ingest)
    t = s.tile[tile]
    t.ingest_free = max(now, t.ingest_free) + length
    s.busy_ps[_B_INGEST] += length
    if t.ingest_free > slowest:
        slowest, category = t.ingest_free, _C_PORT
    path[category] += slowest - now
    path[_C_LATENCY] += latency
    return slowest + latency


@compiled
def store(s, m, tile, now, entry, space):  # type: ignore[no-untyped-def]
    """Move bytes from TSRAM to a memory; return when they are through."""
    size, path = entry.size, entry.path
    s.counters[_TSRAM_READ] += size
    if size == 0 or space == _TSRAM_SPACE:
        path[_C_LATENCY] += m.dma_ps
        return now + m.dma_ps
    cluster, t, chip = m.cluster_of[tile], s.tile[tile], s.chip[0]
    egress = _duration(size, m.egress)
    t.egress_free = max(now, t.egress_free) + egress
    s.busy_ps[_B_EGRESS] += egress
    slowest, category = t.egress_free, _C_PORT
    if space == _CSRAM_SPACE:
        end = _through_csram(s, m, cluster, now, size)
        if end > slowest:
            slowest, category = end, _C_CSRAM
    else:
        here = s.cluster[cluster]
        noc, hbm = _duration(size, m.noc), _duration(size, m.hbm)
        here.noc_out_free = max(now, here.noc_out_free) + noc
        chip.hbm_free = max(now, chip.hbm_free) + hbm
        s.busy_ps[_B_NOC] += noc
        s.busy_ps[_B_HBM] += hbm
        s.counters[_NOC] += size
        s.counters[_HBM_WRITTEN] += size
        if here.noc_out_free > slowest:
            slowest, category = here.noc_out_free, _C_NOC
        if chip.hbm_free > slowest:
            slowest, category = chip.hbm_free, _C_HBM
    path[category] += slowest - now
    path[_C_LATENCY] += m.dma_ps
    return slowest + m.dma_ps
