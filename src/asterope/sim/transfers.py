"""Transfers: shared resources served first come, first served, and tiles staged in CSRAM."""

from __future__ import annotations

import numpy as np

from asterope.sim.state import FINE_BITS, KEY, READY, RING, SENT, SERIAL, SIZE, inlined

__all__ = ["find", "holder", "load", "store", "through_tsram"]

_C_HBM, _C_CSRAM, _C_NOC, _C_PORT, _C_LATENCY, _C_TSRAM = 3, 4, 5, 6, 7, 8
_HBM_READ, _HBM_WRITTEN, _NOC, _CSRAM, _TSRAM_WRITTEN, _TSRAM_READ = range(6)
_B_HBM, _B_CSRAM, _B_NOC, _B_INGEST, _B_EGRESS, _, _, _B_TSRAM = range(8)
_CSRAM_SPACE, _TSRAM_SPACE = 1, 2
_IN, _OUT, _ALL, _SRAM = 0, 1, 0, 1


@inlined
def find(table, key, size):  # type: ignore[no-untyped-def]
    """Return the entry of a key, or the free one where it would go."""
    rows = table.rows
    mask = np.uint64(len(rows) - 1)
    mixed = (key ^ (size << 7)) * np.int64(-7046029254386353131)
    at = np.uint64(mixed >> 17) & mask
    while True:
        if rows[at, SIZE] == 0 or (rows[at, KEY] == key and rows[at, SIZE] == size):
            return at
        at = (at + np.uint64(1)) & mask


@inlined
def _stage(s, p, table, at, entry, cluster, ready):  # type: ignore[no-untyped-def]
    """Note that a tile will be in a cluster's CSRAM, letting the oldest of its kind go."""
    key, size, kind = entry.key, entry.size, p.pinned[entry.instruction]
    limit = p.ring_limit[kind]
    if size > limit:
        return
    row = table.rows[at]
    if row[SIZE] == 0:
        row[KEY], row[SIZE] = key, size
        table.used[0] += 1
    c, sizes = s.cluster[cluster], s.ring_bytes[cluster, kind]
    first, following, used = c.ring_first[kind], c.ring_next[kind], c.ring_used[kind]
    while used + size > limit or following - first >= RING:
        used -= sizes[first & (RING - 1)]
        first += 1
    sizes[following & (RING - 1)] = size
    row[SERIAL + 3 * cluster] = 2 * following + kind
    row[READY + 3 * cluster] = row[SENT + 3 * cluster] = ready
    c.ring_first[kind], c.ring_next[kind], c.ring_used[kind] = first, following + 1, used + size


@inlined
def _duration(size, rate):  # type: ignore[no-untyped-def]
    return np.int64(np.ceil(size / rate))


@inlined
def holder(s, table, at, cluster):  # type: ignore[no-untyped-def]
    """Return the nearest cluster that has, or will have, a tile in its CSRAM, or -1."""
    clusters, row, c = len(s.cluster), table.rows[at], cluster
    for _ in range(clusters):
        serial = row[SERIAL + 3 * c]
        if serial >> 1 >= s.cluster[c].ring_first[serial & 1]:
            return c
        c = c + 1 if c + 1 < clusters else 0
    return -1


@inlined
def _through_csram(s, m, cluster, now, size):  # type: ignore[no-untyped-def]
    """Move bytes through the CSRAM port of a cluster; return when they are through."""
    here = s.cluster[cluster]
    length = _duration(size, m.csram)
    here.csram_free = max(now, here.csram_free) + length
    s.busy_ps[_B_CSRAM] += length
    s.counters[_CSRAM] += size
    return here.csram_free


@inlined
def _through_noc(s, m, cluster, way, now, size, between_srams):  # type: ignore[no-untyped-def]
    """Move bytes through a cluster's port, in or out; return when they are through.

    Traffic between SRAMs need not wait for all of the traffic with HBM that came before: while
    both wait it has its share of the port. What it displaces was promised for sooner; who comes
    after that waits for both.
    """
    free, length = s.noc_free[cluster, way], _duration(size, m.noc)
    free[_ALL] = max(now, free[_ALL]) + length
    s.busy_ps[_B_NOC] += length
    if not between_srams:
        return free[_ALL]
    alone = max(now, free[_SRAM]) + np.int64(np.ceil(length * m.sram_pace))
    free[_SRAM] = min(free[_ALL], alone)
    return free[_SRAM]


@inlined
def through_tsram(s, p, tile, now, index, amount):  # type: ignore[no-untyped-def]
    """Move what an instruction moves through ports and banks; return when all is through."""
    end, rates, free = now, p.tsram_rate[index], s.tsram_free[tile]
    for i in range(3):
        if rates[i]:
            length = (amount * rates[i] + ((1 << FINE_BITS) - 1)) >> FINE_BITS
            free[i] = max(now, free[i]) + length
            s.busy_ps[_B_TSRAM + i] += length
            end = max(end, free[i])
    return end


@inlined
def _joins(m, now, size, sent):  # type: ignore[no-untyped-def]
    """Whether a tile of memory has not begun to arrive, so that others may receive it as well."""
    return m.multicast and now <= sent - max(_duration(size, m.csram), m.dma_ps)


@inlined
def _from_sram(s, m, table, at, source, cluster, now, size):  # type: ignore[no-untyped-def]
    """Take a tile from a cluster that has it; return when it is out, what was slowest, the way."""
    row, way = table.rows[at], abs(source - cluster) * m.hop_ps
    ready, sent = row[READY + 3 * source], row[SENT + 3 * source]
    if _joins(m, now, size, sent):
        category = _C_HBM if now < ready else _C_CSRAM
        return sent - m.dma_ps, category, way
    # Another tile asked first: the bytes may still be on their way to that CSRAM.
    slowest, category = max(now, ready), _C_HBM
    end = _through_csram(s, m, source, now, size)
    if end > slowest:
        slowest, category = end, _C_CSRAM
    if source != cluster:
        end = _through_noc(s, m, source, _OUT, now, size, True)
        if end > slowest:
            slowest, category = end, _C_NOC
    way += m.csram_latency_ps
    row[SENT + 3 * source] = slowest + way + m.dma_ps
    return slowest, category, way


@inlined
def _data_ps(m, p, entry):  # type: ignore[no-untyped-def]
    """Return how long HBM's channels are at a transfer: its bytes, and the rows it opens."""
    index, size = entry.instruction, entry.size
    if not p.gather[index]:
        return size * p.hbm_ps[index]
    piece = max(entry.key, m.granule)
    rows = max(
        min((piece + m.interleave - 1) // m.interleave, m.hbm_channels),
        (piece + m.page - 1) // m.page,
    )
    return size / m.hbm + size / piece * rows * m.row_ps


@inlined
def _from_hbm(s, m, p, now, entry):  # type: ignore[no-untyped-def]
    """Read bytes from HBM; return when they are out."""
    size, chip = entry.size, s.chip[0]
    moved = min(chip.hbm_read + size, m.turn_bytes)
    turns = min(moved, chip.hbm_written)
    chip.hbm_read = moved - turns
    chip.hbm_written -= turns
    length = np.int64(np.ceil(_data_ps(m, p, entry) + turns * m.turn_ps))
    chip.hbm_free = max(now, chip.hbm_free) + length
    chip.hbm_reads_free = max(now, chip.hbm_reads_free) + np.int64(
        np.ceil(size * p.read_ps[entry.instruction])
    )
    s.busy_ps[_B_HBM] += length
    s.counters[_HBM_READ] += size
    return max(chip.hbm_free, chip.hbm_reads_free)


@inlined
def _to_hbm(s, m, p, now, entry):  # type: ignore[no-untyped-def]
    """Write bytes to HBM; return when they are in."""
    size, chip = entry.size, s.chip[0]
    moved = min(chip.hbm_written + size, m.turn_bytes)
    turns = min(moved, chip.hbm_read)
    chip.hbm_written = moved - turns
    chip.hbm_read -= turns
    length = np.int64(np.ceil(_data_ps(m, p, entry) + turns * m.turn_ps))
    chip.hbm_free = max(now, chip.hbm_free) + length
    s.busy_ps[_B_HBM] += length
    s.counters[_HBM_WRITTEN] += size
    return chip.hbm_free


@inlined
def _into_cluster(s, m, cluster, now, size, shared, between_srams):  # type: ignore[no-untyped-def]
    """Take bytes in through a cluster's NoC port, and write what is shared to its CSRAM."""
    through = _through_noc(s, m, cluster, _IN, now, size, between_srams)
    s.counters[_NOC] += size
    if not shared:
        return through, _C_NOC
    end = _through_csram(s, m, cluster, now, size)
    if end > through:
        return end, _C_CSRAM
    return through, _C_NOC


@inlined
def _into_tile(s, m, p, tile, now, entry):  # type: ignore[no-untyped-def]
    """Take bytes in through a tile's port, and write them to its TSRAM."""
    length, t = _duration(entry.size, m.ingest), s.tile[tile]
    t.ingest_free = max(now, t.ingest_free) + length
    s.busy_ps[_B_INGEST] += length
    end = through_tsram(s, p, tile, now, entry.instruction, entry.size)
    if end > t.ingest_free:
        return end, _C_TSRAM
    return t.ingest_free, _C_PORT


@inlined
def load(s, m, p, table, tile, now, entry):  # type: ignore[no-untyped-def]
    """Move a tile of memory into TSRAM; return when it is there and add the way to the path.

    Each resource on the way is reserved from now on; the tile is there when the slowest is
    through, plus latency.
    """
    key, size, path = entry.key, entry.size, entry.path
    shared, space = p.shared[entry.instruction], p.space[entry.instruction]
    s.counters[_TSRAM_WRITTEN] += size
    if size == 0 or space == _TSRAM_SPACE:
        path[_C_LATENCY] += m.dma_ps
        return now + m.dma_ps
    cluster = m.cluster_of[tile]
    source, at, latency = -1, np.uint64(0), m.dma_ps
    if shared:
        at = find(table, key, size)
        if table.rows[at, SIZE] != 0:
            source = holder(s, table, at, cluster)
    if space == _CSRAM_SPACE:
        source = cluster
        slowest, category = _through_csram(s, m, cluster, now, size), _C_CSRAM
        latency += m.csram_latency_ps
    elif source >= 0:
        slowest, category, way = _from_sram(s, m, table, at, source, cluster, now, size)
        latency += way
    else:
        slowest, category = _from_hbm(s, m, p, now, entry), _C_HBM
        latency += m.hbm_latency_ps
    if source != cluster:
        end, other = _into_cluster(s, m, cluster, now, size, shared, source >= 0)
        if end > slowest:
            slowest, category = end, other
        if shared:
            _stage(s, p, table, at, entry, cluster, slowest + latency)
    end, other = _into_tile(s, m, p, tile, now, entry)
    if end > slowest:
        slowest, category = end, other
    path[category] += slowest - now
    path[_C_LATENCY] += latency
    return slowest + latency


@inlined
def store(s, m, p, tile, now, entry):  # type: ignore[no-untyped-def]
    """Move bytes from TSRAM to a memory; return when they are through."""
    size, path, space = entry.size, entry.path, p.space[entry.instruction]
    s.counters[_TSRAM_READ] += size
    if size == 0 or space == _TSRAM_SPACE:
        path[_C_LATENCY] += m.dma_ps
        return now + m.dma_ps
    cluster, t = m.cluster_of[tile], s.tile[tile]
    egress = _duration(size, m.egress)
    t.egress_free = max(now, t.egress_free) + egress
    s.busy_ps[_B_EGRESS] += egress
    slowest, category = t.egress_free, _C_PORT
    end = through_tsram(s, p, tile, now, entry.instruction, size)
    if end > slowest:
        slowest, category = end, _C_TSRAM
    if space == _CSRAM_SPACE:
        end = _through_csram(s, m, cluster, now, size)
        if end > slowest:
            slowest, category = end, _C_CSRAM
    else:
        noc = _through_noc(s, m, cluster, _OUT, now, size, False)
        hbm = _to_hbm(s, m, p, now, entry)
        s.counters[_NOC] += size
        if noc > slowest:
            slowest, category = noc, _C_NOC
        if hbm > slowest:
            slowest, category = hbm, _C_HBM
    path[category] += slowest - now
    path[_C_LATENCY] += m.dma_ps
    return slowest + m.dma_ps
