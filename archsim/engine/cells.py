"""The cells of the engine's memory: what lies where in the one int64 array its kernel works on.

The memory `e` begins with a head of single cells, named here first. Records follow; a record is
known by its place, the index of its first cell, so that ``e[lane + L_DONE]`` is a field of a lane.
Records that are made while a simulation runs and stay are in tables at the end, which grow: these
are known by number, and `row` gives the place for now. `archsim.engine.lowering` lays it out.
"""

from archsim.engine.compiled import Flat, compiled
from machine.program import LOOP_LEVELS, REGISTERS

__all__ = ["row"]

NEVER = 1 << 61
NONE = -1  # no such place, number or time

# Why the kernel came back. It goes on where it was once it is answered.
(
    ENDED,  # nothing is left to happen
    PAUSED,  # nothing is needed: a moment for interrupts
    NEEDS_ROOM,  # a table is nearly full
    NEEDS_DEMAND,  # of ASKED_UNIT for the head of ASKED
    NEEDS_VALUE,  # of the READ at the head of ASKED
    NEEDS_LISTS,  # of the pieces that the head of ASKED gathers, for each unit
    TOKEN_OVERFLOW,  # of token FAULT, whose count would be FAULT_VALUE
    BELOW_MEMORY,  # a transfer begins at FAULT_VALUE
    BEYOND_MEMORY,  # a transfer ends at FAULT_VALUE
    PORT_FULL,  # of the memory: it has all the transfers under way that it can
    NO_LAUNCH_ENTRY,  # of number FAULT_VALUE, for stream FAULT
    NEEDS_TRANSFER,  # the first event asks the memory that Python has
    NEEDS_MEMORY,  # that memory must go on to OUTSIDE_UNTIL, or to what it has done before
) = range(13)
GOES_ON = -1  # no reason: the kernel need not come back

# The head of the memory. Times are ticks unless their name says cycles. OUTSIDE: Python has the
# chips' memory (`archsim.engine.outside`), because its channels compute.
(
    STREAMS, TOKENS, CHIPS, LAUNCHES,
    ISSUE_TICKS, CONTROL_TICKS, TOKEN_TICKS, TOKEN_MOST, READ_TICKS,
    DMA_PERIOD, SETUP_TICKS, OUTSTANDING, UNLOADED_TICKS, BUFFER_TICKS,
    CROSS_TICKS, CROSS_PERIOD, CROSS_BYTES, LINK_PERIOD, LINK_TICKS, LINK_BYTES,
    MEMORY_PERIOD, MEMORY_BYTES, MEMORY_PORTS, MEMORY_DEPTH, STRIPE_BYTES,
    AT_STREAM, AT_TOKEN, AT_LAUNCH, AT_BLOCK, AT_ROUTES, AT_CROSSBAR, AT_CHANNEL, AT_MEMORY,
    AT_SHARE, AT_GATHERED, AT_ENDED, FREE_PART, FREE_JOB, FREE_LANE,
    SLACK, EVENT_NUMBER, SHARES, ASKED, ASKED_UNIT, WALKING, WALK_NOW, FAULT, FAULT_VALUE,
    LISTED, LISTED_END, DEMAND_WIDTH, OUTSIDE, OUTSIDE_UNTIL, PIM_OUTSTANDING, HEAD_OF_TABLES,
) = range(55)  # fmt: skip

# Tables that grow: place, rows used, rows there is room for, cells of a row.
EVENT, LOG, BOOK, MARK, MESSAGE, DEMAND, LIST, ADDRESS, HASH = (
    HEAD_OF_TABLES + 4 * table for table in range(9)
)
TABLES = 9
PLACE, USED, ROOM, WIDTH = range(4)
HEAD = HEAD_OF_TABLES + 4 * TABLES


@compiled
def row(e: Flat, table: int, number: int) -> int:
    """Return the place of a row of a table; it holds until a table grows."""
    return e[table + PLACE] + number * e[table + WIDTH]


# A queue's sequencer. HEAD_PC is NONE while no instruction is at the head; ROW is its row of the
# log once it has issued. RESUMES is the tick of the event that goes on with it. TIME: the head is
# there, or the sequencer is free, from then on. DONE is the latest completion known. ANSWERED: the
# value of a READ, or the lists of a gather, are there. MARKED is its last mark.
(
    S_NUMBER, S_CHIP, S_KIND, S_PLANS, S_LANES, S_LANE_COUNT, S_PRIVATE,
    S_PC, S_HEAD_PC, S_ACTIVE, S_ISSUED, S_ROW, S_TIME, S_RESUMES, S_READING, S_HALTED,
    S_OPEN, S_DONE, S_WAITS_FOR, S_ANSWERED, S_VALUE, S_BASE, S_MARKED, S_DEPTH,
) = range(24)  # fmt: skip
S_LOOPS = 24  # LOOP_LEVELS times: pc of the body, index, count
S_REGISTERS = S_LOOPS + 3 * LOOP_LEVELS
STREAM = S_REGISTERS + REGISTERS
BODY, INDEX, COUNT = range(3)
# What holds a head, for a report of deadlock.
FOR_NOTHING, FOR_TOKENS, FOR_EARLIER, FOR_UNITS, FOR_MEMORY = range(5)

# An instruction. BASE: where the operand in DRAM is described, or NONE. LIMITS: its edge rules.
# UNIFORM: one block describes all its units. BY_RANK: units of different rank differ in size.
# HEAD_TICKS: what it takes from the head of the queue, if active, before it may issue.
(
    P_NUMBER, P_PC, P_OPCODE, P_MASK, P_OP, P_LAYER, P_LAYER_LEVEL, P_PREDICATE, P_NEGATE,
    P_WAITS, P_WAIT_COUNT, P_SIGNALS, P_SIGNAL_COUNT, P_LIMITS, P_LIMIT_COUNT, P_UNIFORM,
    P_BY_RANK, P_BASE, P_IN_DRAM, P_LIST, P_GATHERS, P_CHANNEL,
    P_END, P_COUNT, P_COUNT_REGISTER, P_ALU, P_RD, P_RA, P_B, P_B_REGISTER,
    P_HEAD_TICKS,
) = range(31)  # fmt: skip
PLAN = 31
W_TOKEN, W_COUNT, W_SEEN, WAIT = range(4)  # SEEN: the count when it was last asked in vain
Z_SIZE, Z_BOUND, Z_REGISTER, Z_STEPS, Z_STEP_COUNT, LIMIT = range(6)
T_ADDRESS, T_REGISTER, T_BITS, T_STRIDES, T_STRIDE_COUNT, TILE = range(6)

# A token: its count, how many queues wait for it, and behind that a cell for each queue.
K_COUNT, K_WAITING, K_WAITS = range(3)

# Units of one queue with the same past, and when they accept work: see `archsim.engine.lanes`.
(
    L_MASK, L_COUNT, L_ROUTES, L_PRIVATE, L_BEATS_END, L_NEXT_COMMAND, L_WEIGHTS_OPEN,
    L_WEIGHTS_COMMAND, L_WEIGHTS_AT, L_SUM_BEATS, L_DONE, L_LAST_START, L_PENDING,
    L_IN_FLIGHT, L_OLDEST, L_NEWEST, L_NEXT,
) = range(17)  # fmt: skip
L_FREE = 17  # until when each port of its own is taken
L_WORDS = L_FREE + 4  # what each has granted to one unit
LANE = L_WORDS + 4
WAYS = 4  # of a unit: space and direction, see `way`
# The way from a unit to a buffer. SLOT: which of the unit's own ports, or NONE.
R_PORT, R_PERIOD, R_SLOT, R_GROUP, R_INDEX, R_CLIENT, ROUTE = range(7)

# An arbiter, its ports and their clients: see `archsim.buffer`.
(
    G_PERIOD, G_NOW, G_BANKS, G_TURN, G_FINISH, G_LIVE, G_PLANNED, G_PORTS, G_PORT, GROUP
) = range(10)  # fmt: skip
O_NAME, O_TURN, O_GRANTED, O_CLIENTS, O_CLIENT, PORT = range(6)
(
    C_LEFT, C_PORT_LOST, C_BANK_LOST, C_PORT_MARK, C_BANK_MARK, C_OLDEST, C_NEWEST, CLIENT
) = range(8)  # fmt: skip
J_LEFT, J_WHO, J_NEXT, JOB = range(4)
GR_JOB, GR_PORT, GR_PORT_LOST, GR_BANK_LOST, GRANT = range(5)  # a job that ended

# One lane's share of an instruction under way: see `archsim.engine.flight`.
(
    A_STREAM, A_PLAN, A_ROW, A_LANE, A_DEMAND, A_START, A_FILLED, A_FIRST, A_WORK_END, A_PORT_END,
    A_LAST, A_PORT_LOST, A_BANK_LOST, A_PENDING, A_READY, A_NEXT, A_BASE, A_LIST, A_LIST_COUNT,
    A_LISTS_LEFT, A_MESSAGE, A_UNIT, A_LOSSES,
) = range(23)  # fmt: skip
A_LOSS = 23  # then what was lost at each port
LOSS = 3  # port, to other clients, to banks
LOSSES = 12
PART = A_LOSS + LOSS * LOSSES

# A lane's part of the head, or parts of it that differ. INSIDE: all of the lane that it drives.
H_LANE, H_MASK, H_INSIDE, H_DEMAND, SHARE = range(5)

# A channel of messages between two chips, by tag. SINCE: when the first RECV waited.
N_SENT, N_SENT_LAST, N_WANTED, N_WANTED_LAST, N_SINCE, CHANNEL = range(6)
M_FIRST, M_LAST, M_PART, M_NEXT = range(4)

# The memory of a chip, in its cycles, and behind it who waits for each transfer, by its row.
Y_NOW, Y_SOONEST, Y_UNDER_WAY, MEMORY = range(4)
X_STREAM, X_PART, TRANSFER = range(3)

# Events: when, in which order in the tick, what, to whom.
E_TICK, E_ORDER, E_WHAT, E_WHO = range(4)
(
    WALK, GIVE, GRANTED, ASK_MEMORY, ASK_PORTS, MEMORY_DONE, READY, CAME, WRITE, RETIRE,
    READ_MEMORY, READ_DONE, ASK_PIM, RESULTS,
) = range(14)  # fmt: skip
ISSUES = 1 << 60  # the order of issues: behind every completion of the tick

# The log. LEFT: shares that have not ended.
(
    I_STREAM, I_PC, I_LAYER, I_OP, I_MASK, I_ISSUE, I_START, I_COMPLETION, I_LEFT, I_DEPTH,
) = range(10)  # fmt: skip
I_INDICES = 10
B_STREAM, B_ROW, B_MASK = range(3)  # the books; then the boundaries of accounting.PARTS
V_STREAM, V_TICK, V_CLASS, V_BEFORE = range(4)  # a mark; CLASS is NONE once it is taken back

# What a unit is asked. RUNS: executions of a unit so far. SIZES: the key, with PLAN and BLOCK.
(
    D_PLAN, D_BLOCK, D_EMPTY, D_RUNS, D_FILL, D_WAIT, D_BUSY, D_DRAIN, D_TAIL, D_LOADS, D_HELD,
    D_HEAD, D_SUMS, D_PERIOD, D_MOVED, D_CYCLES, D_LIST, D_LIST_COUNT, D_USES,
) = range(19)  # fmt: skip
D_USE = 19  # then way and words of each use of a port
USES = 10
D_SIZES = D_USE + 2 * USES
# A list of pieces: one strided piece, or runs at addresses. FIRST is NONE for a piece.
Q_OFFSET, Q_BYTES, Q_ROWS, Q_STRIDE, Q_FIRST = range(5)
