"""Counting semaphores: the only order between queues.

A take is all or nothing: the counts of one instruction are subtracted together. When several
queues wait for one token, those that a signal wakes try again in the order of their numbers,
after every signal of the same tick has been added.
"""

from archsim.engine import cells as c
from archsim.engine.compiled import Flat, compiled
from archsim.engine.events import resume

__all__ = ["give", "take"]


@compiled
def token(e: Flat, number: int) -> int:
    """Return the place of a token."""
    return e[c.AT_TOKEN] + number * (c.K_WAITS + e[c.STREAMS])


@compiled
def take(e: Flat, stream: int, plan: int) -> bool:
    """Take the tokens that `plan` waits for, or note that `stream` waits for those it lacks."""
    first = e[plan + c.P_WAITS]
    end = first + e[plan + c.P_WAIT_COUNT] * c.WAIT
    lacks = False
    for wait in range(first, end, c.WAIT):
        if e[token(e, e[wait + c.W_TOKEN]) + c.K_COUNT] < e[wait + c.W_COUNT]:
            lacks = True
    for wait in range(first, end, c.WAIT):
        place = token(e, e[wait + c.W_TOKEN])
        e[wait + c.W_SEEN] = e[place + c.K_COUNT]
        if not lacks:
            e[place + c.K_COUNT] -= e[wait + c.W_COUNT]
        elif e[place + c.K_COUNT] < e[wait + c.W_COUNT]:
            waits = place + c.K_WAITS + e[stream + c.S_NUMBER]
            e[place + c.K_WAITING] += 1 - e[waits]
            e[waits] = 1
    return not lacks


@compiled
def give(e: Flat, plan: int, now: int) -> int:
    """Add what `plan` signals and wake who waits for it; return why the kernel must stop, if so."""
    first = e[plan + c.P_SIGNALS]
    end = first + e[plan + c.P_SIGNAL_COUNT] * c.WAIT
    for signal in range(first, end, c.WAIT):
        place = token(e, e[signal + c.W_TOKEN])
        e[place + c.K_COUNT] += e[signal + c.W_COUNT]
        if e[place + c.K_COUNT] > e[c.TOKEN_MOST]:
            e[c.FAULT], e[c.FAULT_VALUE] = e[signal + c.W_TOKEN], e[place + c.K_COUNT]
            return c.TOKEN_OVERFLOW
    for signal in range(first, end, c.WAIT):
        place = token(e, e[signal + c.W_TOKEN])
        if e[place + c.K_WAITING] == 0:
            continue
        e[place + c.K_WAITING] = 0
        for number in range(e[c.STREAMS]):
            if e[place + c.K_WAITS + number]:
                e[place + c.K_WAITS + number] = 0
                resume(e, e[c.AT_STREAM] + number * c.STREAM, now)
    return c.GOES_ON
