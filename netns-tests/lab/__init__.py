"""The laboratory: network namespaces, a router under test, and raw sockets at the hosts' interfaces.

Laws
- Every namespace is ours: its name starts with `uf<pid>-`; a later run sweeps those whose process is dead.
- Frames go in and come out as bytes. Nothing here decides what is right: tests do, or the kernel does.
- The same test runs on every router: `kernel` (nft in a namespace) and `userfw` (the daemon).
- Nothing sleeps to be sure: a barrier (an ARP exchange on the port that was used) says that all before it is done.
"""
