"""TCP's states: one table, total over event x state x direction (Linux: tcp_conntracks; states as conntrack.const.TCP_*).

Laws: `TABLE[(direction * 6 + event) * 10 + state]` is the next state, TCP_MAX for a packet that is invalid there,
TCP_IGNORE for one that passes and teaches nothing. Whether the packet is believed at all is asked in tcp.py.
"""

# Columns, in the order of the states' numbers: what the connection is in when the packet comes.
_COLUMNS = "NO SS SR ES FW CW LA TW CL S2"
_CODES = {"NO": 0, "SS": 1, "SR": 2, "ES": 3, "FW": 4, "CW": 5, "LA": 6, "TW": 7, "CL": 8, "S2": 9, "--": 10, "ig": 11}
# Rows: syn, syn+ack, fin, ack, rst, none. `--`: invalid; `ig`: passes, nothing is learnt.
_ORIGINAL = (
    # A SYN opens; repeats; reopens what was closed; in between it may be a client that forgot: the server will tell.
    "SS SS ig ig ig ig ig SS SS S2",
    # Clients send SYN+ACK only in simultaneous open (RFC 9293 figure 8).
    "-- -- SR -- -- -- -- -- -- SR",
    # The first FIN waits for its ACK; one against CLOSE_WAIT is the last; a repeat changes nothing. Before SYN+ACK it is
    # nonsense.
    "-- -- FW FW LA LA LA TW CL --",
    # ACK: without history it picks a connection up; it completes the handshake; it acknowledges FINs.
    "ES -- ES ES CW CW TW TW CL --",
    # RST ends everything that exists; whether it may is asked further on.
    "-- CL CL CL CL CL CL CL CL CL",
    "-- -- -- -- -- -- -- -- -- --",
)
_REPLY = (
    # A SYN from the server: simultaneous open, or after TIME_WAIT a connection with the roles exchanged.
    "-- S2 -- -- -- -- -- SS -- S2",
    # SYN+ACK answers; later it may answer a SYN that we let through unlearnt.
    "-- SR ig ig ig ig ig ig ig SR",
    "-- -- FW FW LA LA LA TW CL --",
    # ACK to a fresh SYN: a challenge ACK of an older incarnation (RFC 5961 section 4), the client will reset it.
    "-- ig SR ES CW CW TW TW CL ig",
    "-- CL CL CL CL CL CL CL CL CL",
    "-- -- -- -- -- -- -- -- -- --",
)


def _build() -> bytes:
    """TABLE[(direction * 6 + event) * 10 + state]."""
    return bytes(_CODES[cell] for rows in (_ORIGINAL, _REPLY) for row in rows for cell in row.split())


TABLE = _build()
