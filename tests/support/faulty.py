"""A network between a party and a server in this process: it drops, loses, doubles, delays.

Each call takes the next fate from `fates`; without one it arrives and is answered.

| fate | what happens |
|---|---|
| `drop` | the call never arrives |
| `lost` | it arrives and acts, its answer never comes back |
| `twice` | it arrives twice, as a proxy that repeats would send it |
| `late` | it arrives after later calls, when nobody waits for it any more |
| `slow` | it is `SLOW_S` on its way, its answer too: just young enough to count |
"""

import httpx

FATES = ("drop", "lost", "twice", "late", "slow")
SLOW_S = 55.0
"""A signature counts for 60 seconds."""


class Faulty(httpx.BaseTransport):
    """Hands calls to another transport, or does not; both ends share the clock."""

    def __init__(self, inner, clock):
        self.inner, self.clock, self.fates, self.held = inner, clock, [], []

    def handle_request(self, request):
        fate = self.fates.pop(0) if self.fates else ""
        request.read()
        if fate == "drop":
            raise httpx.ConnectError("dropped", request=request)
        if fate == "late":
            self.held.append(request)
            raise httpx.ReadTimeout("late", request=request)
        on_the_way_s = SLOW_S if fate == "slow" else 0.0
        self.clock.advance(on_the_way_s)
        answer = self.inner.handle_request(request)
        self.clock.advance(on_the_way_s)
        if fate == "twice":
            self.inner.handle_request(request)
        if fate == "lost":
            raise httpx.ReadError("lost", request=request)
        return answer

    def arrive(self):
        """Let what was late arrive now, the last one first."""
        held, self.held = self.held[::-1], []
        return [self.inner.handle_request(request).status_code for request in held]
