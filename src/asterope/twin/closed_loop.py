"""A server under a closed loop: so many requests in flight, the next sent when one is done.

Pure arithmetic on whole picoseconds: which prompts a step reads is decided by the server's limits,
how long it takes by the caller's function. Nothing is random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from asterope.errors import ConfigError
from asterope.operators import Chunk
from asterope.units import PS_PER_S

__all__ = ["LoopTimes", "Request", "Server", "closed_loop"]

StepTimer = Callable[[tuple[Chunk, ...], int, int], float]
"""Seconds of a step: chunks of prompts, sequences that get a token, and their mean context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a server admits to a step.

    max_batch: sequences at once. max_step_tokens: tokens of a step, prompts and new ones.
    kv_tokens: tokens that the cache holds; when it is full the sequence admitted last gives its
    place back, and is read again from its start. reserved_output: the share of a request's output
    that must be free in the cache to admit it. chunked: a prompt may be cut where the tokens of a
    step end. prompts_first: a step that reads prompts makes no new tokens for others.
    schedules_ahead: a step is decided when the one before it starts, not when it ends, and its
    tokens leave once the host has launched the next, which takes launch_s if that reads prompts.
    turnaround_s: from a token's step to the client and back to where the server sees what
    follows. host_step_s and host_sequence_s: the least time of a step, for what the host does in
    it, and what each sequence adds to that. request_s and token_s: what the front-end takes for a
    request and for a token that it sends out, each one after the other. first_shown: the token with
    which a client sees text for the first time.
    """

    max_batch: int
    max_step_tokens: int
    kv_tokens: int
    reserved_output: float = 0.5
    chunked: bool = True
    prompts_first: bool = False
    schedules_ahead: bool = False
    launch_s: float = 0.0
    turnaround_s: float = 0.005
    host_step_s: float = 0.0
    host_sequence_s: float = 0.0
    request_s: float = 0.0
    token_s: float = 0.0
    first_shown: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Tokens of a prompt and of its answer."""

    prompt: int
    output: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopTimes:
    """Of each request in order: seconds to the first token, and between tokens after it.

    A request of one token has no time between tokens; it is 0.
    """

    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    total_s: float

    @property
    def mean_ttft_s(self) -> float:
        """Return the mean time to the first token."""
        return sum(self.ttft_s) / len(self.ttft_s)

    @property
    def mean_tpot_s(self) -> float:
        """Return the mean time between tokens."""
        return sum(self.tpot_s) / len(self.tpot_s)


@dataclass(slots=True, eq=False)
class _Sequence:
    """A request on its way."""

    request: Request
    sent_ps: int
    seen_ps: int
    read: int = 0
    written: int = 0
    kept: int = 0  # tokens written before its place was given back, to be read again
    first_ps: int = 0
    last_ps: int = 0

    @property
    def context(self) -> int:
        return self.request.prompt + self.written

    @property
    def missing(self) -> int:
        return self.request.prompt + self.kept - self.read

    @property
    def over(self) -> bool:
        return self.written >= self.request.output

    def reserved(self, share: float) -> int:
        most = self.request.prompt + round(share * self.request.output)
        return max(most, self.context)


@dataclass(slots=True, eq=False)
class _Loop:
    server: Server
    step_s: StepTimer
    to_send: deque[Request]
    waiting: deque[_Sequence] = field(default_factory=deque)
    running: list[_Sequence] = field(default_factory=list)
    done: list[_Sequence] = field(default_factory=list)
    undelivered: list[_Sequence] = field(default_factory=list)
    now_ps: int = 0
    decided_ps: int = 0
    received_ps: int = 0  # when the front-end is through with the requests sent so far
    sent_out_ps: int = 0  # when it is through with the tokens made so far
    own_ps: int = 0  # its time for those of the last step

    def send(self, at_ps: int) -> None:
        if not self.to_send:
            return
        self.received_ps = max(self.received_ps, at_ps) + round(self.server.request_s * PS_PER_S)
        request = self.to_send.popleft()
        self.waiting.append(_Sequence(request=request, sent_ps=at_ps, seen_ps=self.received_ps))

    def step(self) -> None:
        """Play one step, or as many that only make tokens as nothing can change."""
        chunks = self._chunks(admits=self._had_room())
        decodes = self._writers()
        if chunks and self.server.prompts_first:
            decodes = []
        if not chunks and not decodes:
            self.deliver(0)
            self.now_ps = self.decided_ps = max(self.now_ps, self.waiting[0].seen_ps)
            return
        launch_ps = round(self.server.launch_s * PS_PER_S) if chunks else 0
        self.deliver(launch_ps)
        shapes = tuple(Chunk(tokens=n, context=s.read) for s, n in chunks)
        context = sum(s.context for s in decodes) // len(decodes) if decodes else 0
        began_ps = self.now_ps
        start_ps, once_ps = self.now_ps, self._timed(shapes, len(decodes), context)
        steps = 1 if chunks else self._steps_alike(decodes, once_ps)
        if steps > 1:
            last_ps = self._timed((), len(decodes), context + steps - 1)
            self.now_ps += (once_ps + last_ps) * steps // 2
            start_ps = self.now_ps - last_ps
        else:
            self.now_ps += once_ps
        for sequence, tokens in chunks:
            sequence.read += tokens
        for sequence in decodes:
            sequence.written += steps
        read = [s for s, _ in chunks if not s.missing]
        for sequence in read:
            sequence.written += 1
        self._send_out(len(decodes) + len(read), steps, began_ps)
        self._finish([*read, *decodes])
        self.decided_ps = start_ps + launch_ps
        if not self.server.schedules_ahead:
            self.deliver(0)
            self.decided_ps = self.now_ps

    def deliver(self, after_ps: int) -> None:
        """Send out the tokens of the last step, and what clients send when they are done."""
        at_ps = self.now_ps + after_ps + max(0, self.sent_out_ps - self.now_ps - self.own_ps // 2)
        for sequence in self.undelivered:
            if not sequence.first_ps:
                sequence.first_ps = at_ps
            if sequence.over:
                sequence.last_ps = at_ps
                self.done.append(sequence)
                self.send(at_ps + round(self.server.turnaround_s * PS_PER_S))
        self.undelivered = []

    def _send_out(self, tokens: int, steps: int, began_ps: int) -> None:
        """Queue the tokens of steps alike, that began then and end now, at the front-end."""
        self.own_ps = round(tokens * self.server.token_s * PS_PER_S)
        grows_ps = self.own_ps - (self.now_ps - began_ps) // steps
        queued_ps = max(0, self.sent_out_ps - began_ps) + steps * grows_ps
        fresh_ps = self.own_ps + (steps - 1) * max(0, grows_ps)
        self.sent_out_ps = self.now_ps + max(queued_ps, fresh_ps)

    def _timed(self, shapes: tuple[Chunk, ...], batch: int, context: int) -> int:
        server = self.server
        host_s = server.host_step_s + server.host_sequence_s * (batch + len(shapes))
        return max(1, round(max(self.step_s(shapes, batch, context), host_s) * PS_PER_S))

    def _writers(self) -> list[_Sequence]:
        return [s for s in self.running if s.written and not s.missing]

    def _had_room(self) -> bool:
        """Give back places, the last admitted first, until the next tokens fit the cache."""
        before = len(self.running)
        while len(self.running) > 1:
            used = sum(s.context for s in self.running) + len(self._writers())
            if used <= self.server.kv_tokens:
                break
            last = self.running.pop()
            last.kept, last.read = last.written, 0
            self.waiting.appendleft(last)
        return len(self.running) == before

    def _chunks(self, *, admits: bool) -> list[tuple[_Sequence, int]]:
        """Return the prompts that the next step reads, and how many tokens of each."""
        server = self.server
        left = server.max_step_tokens
        if not server.prompts_first:
            left -= len(self._writers())
        found = []
        for sequence in self.running:
            if sequence.missing and left > 0:
                found.append((sequence, min(sequence.missing, left)))
                left -= min(sequence.missing, left)
        share = server.reserved_output
        free = server.kv_tokens - sum(s.reserved(share) for s in self.running)
        while admits and self.waiting and len(self.running) < server.max_batch and left > 0:
            first = self.waiting[0]
            late = first.seen_ps > self.decided_ps
            cut = first.missing > left and not server.chunked
            if late or (cut and found) or (first.reserved(share) > free and self.running):
                break
            self.running.append(self.waiting.popleft())
            free -= first.reserved(share)
            tokens = min(first.missing, left) if server.chunked else first.missing
            found.append((first, tokens))
            left -= tokens
        return found

    def _steps_alike(self, decodes: Sequence[_Sequence], once_ps: int) -> int:
        """Count the steps until a request is done, the cache is full, or a new request is seen."""
        shown = self.server.first_shown
        steps = min(
            (shown if s.written < min(shown, s.request.output) else s.request.output) - s.written
            for s in decodes
        )
        free = self.server.kv_tokens - sum(s.context for s in self.running)
        if len(self.running) > 1:
            steps = min(steps, max(1, free // len(decodes)))
        if len(self.running) < self.server.max_batch and self.waiting:
            coming = self.waiting[0].seen_ps - self.decided_ps
            steps = min(steps, max(1, coming // once_ps)) if coming > 0 else steps
        return steps

    def _finish(self, got: Sequence[_Sequence]) -> None:
        """Note the tokens of a step; those that are first shown or last are waited for."""
        shown = self.server.first_shown
        self.undelivered += [s for s in got if s.written == shown or s.over]
        self.running = [s for s in self.running if not s.over]


def closed_loop(
    server: Server, requests: Sequence[Request], step_s: StepTimer, *, concurrency: int
) -> LoopTimes:
    """Play requests in order, `concurrency` of them in flight, all of those sent at once at first.

    Time to the first token is from when a request is seen to when the step that reads the end of
    its prompt is over, and a turnaround. A request that the cache cannot hold beside others waits;
    alone it runs, whatever its length.

    Raises: ConfigError for no requests, or sizes below one.
    """
    sizes = [concurrency, server.max_batch, server.max_step_tokens]
    sizes += [n for request in requests for n in (request.prompt, request.output)]
    if not requests or min(sizes) < 1:
        raise ConfigError("a closed loop needs requests, and sizes of 1 or more", where="requests")
    loop = _Loop(server=server, step_s=step_s, to_send=deque(requests))
    for _ in range(concurrency):
        loop.send(0)
    while loop.waiting or loop.running or loop.undelivered:
        loop.step() if loop.waiting or loop.running else loop.deliver(0)
    sent = sorted(loop.done, key=lambda s: s.sent_ps)
    return LoopTimes(
        ttft_s=tuple((s.first_ps - s.sent_ps) / PS_PER_S + server.turnaround_s for s in sent),
        tpot_s=tuple(
            (s.last_ps - s.first_ps) / PS_PER_S / max(1, s.request.output - server.first_shown)
            for s in sent
        ),
        total_s=loop.now_ps / PS_PER_S,
    )
